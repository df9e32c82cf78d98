/* Uploads on the page Import: files that are dropped or chosen are sent in pieces by tus, go on after a broken
   connection or a reload, and are imported when all volumes of a bundle are there. Single files of a bundle without
   folders are known by the bundle.json and SHA256SUMS among them, and are sent as one set. */
"use strict";
(function () {
  const zone = document.getElementById("drop");
  const list = document.getElementById("sending");
  if (!zone || !list || !window.tus || !window.tus.isSupported) return;
  const picker = zone.querySelector("input[type=file]");
  const token = document.querySelector("#drop input[name=csrfmiddlewaretoken]").value;
  const NAME = /^([A-Za-z0-9][A-Za-z0-9._-]{0,150}?(?:\.tar|(?=\.\d{3}of\d{3}$)))(?:\.(\d{3})of(\d{3}))?$/i;
  const LIST = /^([A-Za-z0-9][A-Za-z0-9._-]{0,154})\.sha256$/i;
  const FOR_PEOPLE = /\.join\.txt$/i;
  const SINGLE = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;
  const SUMS_LIMIT = 1024 * 1024;
  const PIECE = 32 * 1024 * 1024;
  const AT_ONCE = 2;
  const waiting = [];
  const bundles = new Set();
  const sent = new Map();
  const known = new Set();
  const broken = new Set();
  let active = 0;

  zone.classList.add("ready");
  window.addEventListener("beforeunload", function (event) { if (active) event.preventDefault(); });

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function size(bytes) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = 0;
    while (bytes >= 1024 && power < units.length - 1) { bytes /= 1024; power += 1; }
    return (power ? bytes.toFixed(bytes < 10 ? 1 : 0) : bytes) + " " + units[power];
  }

  function row(file) {
    const item = element("li", "", "sending");
    const bar = element("progress");
    const said = element("span", "waiting", "said");
    const stop = element("button", "Pause", "button small");
    stop.type = "button";
    bar.max = Math.max(file.size, 1);
    bar.value = 0;
    bar.setAttribute("aria-label", file.name);
    item.append(element("span", file.name, "name"), bar, said, stop);
    list.append(item);
    return { item: item, bar: bar, said: said, stop: stop };
  }

  function sentence(answer) {
    const status = answer ? answer.getStatus() : 0;
    const text = status >= 400 && answer.getBody();
    if (text && text.length < 600 && text.indexOf("<") < 0) return text.trim();
    if (status === 401) return "Your session has ended. Sign in again; the upload then goes on where it stopped.";
    if (status === 413) return "A server on the way refuses pieces of this size.";
    if (status >= 400) return "The server cannot take it now (it answers " + status + "). Choose the file again to go on.";
    return "The server does not answer. Choose the file again to go on.";
  }

  // What was dropped or chosen at once. Which files are a set of single ones stands in the SHA256SUMS among them.
  function take(files) {
    const all = Array.from(files);
    const sums = all.find(function (file) { return file.name === "SHA256SUMS" && file.size <= SUMS_LIMIT; });
    const first = all.find(function (file) { return file.name === "bundle.json"; });
    if (!sums || !first) return all.forEach(function (file) { add(file, ""); });
    Promise.all([sums.text(), first.slice(0, 4096).text()]).then(function (texts) {
      const members = new Set(["bundle.json", "SHA256SUMS", "SHA256SUMS.sig"]);
      texts[0].split("\n").forEach(function (line) { if (line.length > 66) members.add(line.slice(66)); });
      const id = /"bundle": "([A-Za-z0-9]{4,40})"/.exec(texts[1]);
      const set = "airgap-files-" + (id ? id[1] : "unnamed");
      all.forEach(function (file) { add(file, members.has(file.name) && SINGLE.test(file.name) ? set : ""); });
    }).catch(function () { all.forEach(function (file) { add(file, ""); }); });
  }

  // `set` is the set of single files it belongs to, "" for a bundle's file or a volume.
  function add(file, set) {
    if (!set && FOR_PEOPLE.test(file.name)) return;
    const match = NAME.exec(file.name) || LIST.exec(file.name);
    const name = set ? set + "/" + file.name : file.name;
    const key = name + ":" + file.size;
    if (known.has(key)) return;
    list.querySelectorAll(".failed").forEach(function (line) { if (line.dataset.key === key) line.remove(); });
    const shown = row(file);
    shown.item.dataset.key = key;
    if (!match && !set) {
      shown.bar.remove();
      shown.stop.remove();
      shown.said.textContent = "is not called like a bundle: airgap-….tar, or airgap-….tar.001of004, or the list of " +
        "checksums of such volumes, airgap-….tar.sha256; a single file of a " +
        "bundle comes together with its bundle.json, its SHA256SUMS and all that this lists";
      shown.item.classList.add("failed");
      return;
    }
    bundles.add(set || match[1]);
    broken.delete(set || match[1]);
    if (isWhole(key)) {
      shown.bar.remove();
      shown.stop.remove();
      shown.said.textContent = "is here and whole; not sent again";
      shown.item.classList.add("done");
      // Not before what was dropped with it is waiting, too.
      return void Promise.resolve().then(next);
    }
    known.add(key);
    waiting.push(upload(file, name, shown, key, set || match[1]));
    next();
  }

  // A volume that was found to be what its list says, when another one was damaged.
  function isWhole(key) {
    return Array.from(document.querySelectorAll("[data-whole]")).some(function (shown) { return shown.dataset.whole === key; });
  }

  function upload(file, name, shown, key, bundle) {
    let begun = Date.now();
    let first = null;
    let answer = null;
    const sending = new window.tus.Upload(file, {
      endpoint: zone.dataset.endpoint,
      chunkSize: PIECE,
      retryDelays: [0, 1000, 3000, 10000, 30000, 60000],
      metadata: { filename: name },
      headers: { "X-CSRFToken": token },
      onBeforeRequest: function () { answer = null; },
      // Where the server cannot say how much is here, tus would begin anew. That is right only where nothing is here.
      onAfterResponse: function (request, response) {
        answer = response;
        const gone = [404, 410].includes(response.getStatus());
        if (request.getMethod() === "HEAD" && response.getStatus() >= 400 && !gone) throw new Error("It cannot say now.");
      },
      onShouldRetry: function () {
        const status = answer ? answer.getStatus() : 0;
        // Said until bytes move again: somebody may have to make room meanwhile.
        if (status >= 500) shown.said.textContent = sentence(answer) + " Tried again by itself for a while.";
        return status === 0 || status === 409 || status === 423 || status === 460 || status >= 500;
      },
      onProgress: function (sent, total) {
        if (first === null) { first = sent; begun = Date.now(); }
        const seconds = (Date.now() - begun) / 1000;
        const rate = seconds > 1 ? (sent - first) / seconds : 0;
        shown.bar.value = sent;
        shown.said.textContent = size(sent) + " of " + size(total) + (rate > 0 ? " · " + size(Math.round(rate)) + "/s" : "");
      },
      onError: function () {
        active -= 1;
        broken.add(bundle);
        known.delete(key);
        shown.item.classList.add("failed");
        shown.said.textContent = sentence(answer);
        shown.stop.remove();
        next();
      },
      onSuccess: function () {
        active -= 1;
        shown.bar.value = shown.bar.max;
        shown.said.textContent = size(file.size) + " uploaded";
        shown.item.classList.add("done");
        shown.stop.remove();
        sent.set(name, sending);
        next();
      }
    });
    let paused = false;
    shown.stop.addEventListener("click", function () {
      paused = !paused;
      shown.stop.textContent = paused ? "Go on" : "Pause";
      if (paused) { sending.abort(); shown.said.textContent += " · paused"; } else { first = null; sending.start(); }
    });
    return sending;
  }

  function next() {
    while (active < AT_ONCE && waiting.length) {
      const sending = waiting.shift();
      active += 1;
      sending.findPreviousUploads().then(function (before) {
        if (before.length) sending.resumeFromPreviousUpload(before[0]);
        sending.start();
      });
    }
    if (!active && !waiting.length && bundles.size) finish();
  }

  // Everything was sent: ask for the import of each bundle that is complete; the server says what is missing. Why a file
  // was not taken stands at that file already.
  function finish() {
    const names = Array.from(bundles).filter(function (name) { return !broken.has(name); });
    bundles.clear();
    Promise.all(names.map(begin)).then(function (answers) {
      const urls = answers.filter(function (answer) { return answer.url; });
      if (urls.length === 1 && names.length === 1 && !broken.size) location.assign(urls[0].url);
      else if (urls.length && !broken.size) location.assign(zone.dataset.page);
      answers.filter(function (answer) { return answer.problem; }).forEach(function (answer) {
        list.append(element("li", answer.problem, "notice warning"));
      });
    });
  }

  function begin(name) {
    const form = new FormData(document.getElementById("drop"));
    form.delete("files");
    form.set("name", name);
    return fetch(zone.dataset.start, {
      method: "POST", body: new URLSearchParams(form), headers: { "Accept": "application/json", "X-CSRFToken": token }
    }).then(function (answer) { return answer.json(); }).then(function (answer) {
      if (answer.url) forget(name);
      return answer;
    }).catch(function () {
      return { problem: name + " was uploaded, but the server does not answer. Reload this page and begin the import below." };
    });
  }

  // What is being imported is not gone on with; until then a volume that came whole is not sent again after a reload.
  function forget(bundle) {
    sent.forEach(function (sending, name) {
      if (name !== bundle && !name.startsWith(bundle + ".") && !name.startsWith(bundle + "/")) return;
      sent.delete(name);
      sending.findPreviousUploads().then(function (before) {
        before.forEach(function (upload) { window.tus.defaultOptions.urlStorage.removeUpload(upload.urlStorageKey); });
      });
    });
  }

  picker.addEventListener("change", function () {
    take(picker.files);
    picker.value = "";
  });
  ["dragenter", "dragover"].forEach(function (kind) {
    document.addEventListener(kind, function (event) {
      event.preventDefault();
      zone.classList.add("over");
    });
  });
  ["dragleave", "drop"].forEach(function (kind) {
    document.addEventListener(kind, function (event) {
      event.preventDefault();
      if (kind === "drop" || !event.relatedTarget) zone.classList.remove("over");
    });
  });
  document.addEventListener("drop", function (event) {
    if (event.dataTransfer) take(event.dataTransfer.files);
  });
})();
