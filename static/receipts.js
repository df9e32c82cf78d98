/* Load a receipt: reads the QR code in a photo, or before the camera, and puts its text into the form. The picture stays
   in the browser. The page works without this file, by code, text and file. */
"use strict";
(function () {
  const form = document.getElementById("receipt-form");
  if (!form || !window.jsQR) return;
  const text = form.elements.text;
  const way = form.elements.way;
  const photo = document.getElementById("receipt-photo");
  const camera = document.getElementById("receipt-camera");
  const video = document.getElementById("receipt-video");
  const canvas = document.getElementById("receipt-canvas");
  const said = document.getElementById("receipt-said");
  // Small pictures are read faster, large ones hold more; what one size does not give, another often does.
  const SIDES = [1000, 1600, 700, 2400, 500];
  const LARGEST = 64 * 1024 * 1024;
  let stream = null;
  let timer = 0;

  document.getElementById("receipt-picture").hidden = false;

  function say(sentence) { said.textContent = sentence; }

  function readAt(image, width, height, side) {
    const scale = Math.min(1, side / Math.max(width, height));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    const found = window.jsQR(pixels.data, pixels.width, pixels.height);
    return found ? new TextDecoder().decode(Uint8Array.from(found.binaryData)) : "";
  }

  function take(found) {
    if (!found.startsWith("airgap-receipt ")) {
      say("The picture holds a QR code, and it is not one of a receipt.");
      return false;
    }
    text.value = found;
    form.elements.file.value = "";
    way.value = "qr";
    say("The QR code was read. Load it now.");
    form.querySelector("button.main").focus();
    return true;
  }

  text.addEventListener("input", function () { way.value = ""; });

  photo.addEventListener("change", function () {
    const file = photo.files[0];
    if (!file) return;
    if (file.size > LARGEST) return say("The picture is too large; take one of less than 64 MB.");
    say("Looking for a QR code…");
    createImageBitmap(file).then(function (image) {
      const sides = SIDES.slice();
      (function next() {
        if (!sides.length) return say("No QR code was found. Take the photo nearer, straight and without glare; or type the code.");
        const found = readAt(image, image.width, image.height, sides.shift());
        if (found) return take(found);
        setTimeout(next, 0);
      })();
    }, function () { say("This is no picture that the browser can read."); });
  });

  function stop() {
    clearTimeout(timer);
    if (stream) stream.getTracks().forEach(function (track) { track.stop(); });
    stream = null;
    video.hidden = true;
    camera.textContent = "Use the camera of this device";
  }

  function look() {
    if (!stream) return;
    if (video.videoWidth) {
      const found = readAt(video, video.videoWidth, video.videoHeight, 1600);
      if (found && take(found)) return stop();
    }
    timer = setTimeout(look, 250);
  }

  // Browsers give the camera to pages over TLS (or on this machine) alone.
  if (window.isSecureContext && navigator.mediaDevices && navigator.mediaDevices.getUserMedia) {
    camera.hidden = false;
    camera.addEventListener("click", function () {
      if (stream) return stop();
      const wish = { video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } } };
      navigator.mediaDevices.getUserMedia(wish).then(function (found) {
        stream = found;
        video.srcObject = found;
        video.hidden = false;
        camera.textContent = "Stop the camera";
        say("Hold the QR code so that it fills the picture.");
        return video.play().then(look);
      }).catch(function () {
        stop();
        say("The camera cannot be used. Take a photo instead, or type the code.");
      });
    });
    window.addEventListener("pagehide", stop);
  }
})();
