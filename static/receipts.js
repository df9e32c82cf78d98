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
  const CAMERA = { video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1080 } } };
  const none = document.getElementById("receipt-no-camera");
  // Which wish for the camera holds, 0 for none; every one has a number of its own.
  let wish = 0;
  let wishes = 0;
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

  function release(found) { if (found) found.getTracks().forEach(function (track) { track.stop(); }); }

  function stop(sentence) {
    wish = 0;
    clearTimeout(timer);
    release(stream);
    stream = null;
    video.srcObject = null;
    video.hidden = true;
    camera.textContent = "Use the camera of this device";
    if (sentence) say(sentence);
  }

  function look() {
    if (!stream) return;
    if (video.videoWidth) {
      const found = readAt(video, video.videoWidth, video.videoHeight, 1600);
      if (found && take(found)) return stop();
    }
    timer = setTimeout(look, 250);
  }

  // Whoever is asked may take a while, and stop or leave meanwhile: what is given to an older wish goes off at once.
  function start() {
    const own = wish = wishes += 1;
    camera.textContent = "Stop the camera";
    say("The browser asks whether this page may use the camera.");
    navigator.mediaDevices.getUserMedia(CAMERA).then(function (found) {
      if (own !== wish) return release(found);
      stream = found;
      found.getVideoTracks()[0].addEventListener("ended", function () {
        if (own === wish) stop("The camera went away. Switch it on again, take a photo, or type the code.");
      });
      video.srcObject = found;
      video.hidden = false;
      say("Hold the QR code so that it fills the picture.");
      return video.play().then(look);
    }).catch(function (error) {
      if (own === wish) stop(why(error));
    });
  }

  function why(error) {
    const otherwise = "Or take a photo, or type the code.";
    if (error.name === "NotAllowedError" || error.name === "SecurityError") {
      return "The browser is not allowed to use the camera. Allow it for this page beside its address, and in the system's " +
        "settings. " + otherwise;
    }
    if (error.name === "NotFoundError" || error.name === "OverconstrainedError") {
      return "This device has no camera that the browser finds. Connect one, then try again. " + otherwise;
    }
    return "The camera does not start; another program may be using it. End that, then try again. " + otherwise;
  }

  if (!window.isSecureContext) {
    none.textContent = "Browsers give the camera to no page without TLS (https), so there is no live picture here. A photo does as well.";
  } else if (navigator.mediaDevices && navigator.mediaDevices.getUserMedia) {
    camera.hidden = false;
    camera.addEventListener("click", function () { if (wish) stop("The camera is off."); else start(); });
    window.addEventListener("pagehide", function () { stop(); });
    document.addEventListener("visibilitychange", function () {
      if (document.hidden && stream) stop("The camera went off because another page or program was in front.");
    });
  } else {
    none.textContent = "This browser gives no page a live picture. A photo does as well.";
  }
})();
