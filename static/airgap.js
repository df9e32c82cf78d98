/* What plain HTML cannot do: `/` jumps to the search, a button copies, live parts rest while nobody looks, and say so
   when the server does not answer. Every page works without this file. */
"use strict";
(function () {
  document.addEventListener("keydown", function (event) {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const search = document.querySelector("input[type=search]");
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  });

  document.addEventListener("htmx:beforeRequest", function (event) {
    const polled = !event.detail.requestConfig.triggeringEvent;
    const selecting = String(document.getSelection()) !== "";
    if (polled && (document.hidden || selecting)) event.preventDefault();
  });

  // What somebody unfolded stays unfolded when its part of the page is replaced.
  let unfolded = [];
  document.addEventListener("htmx:beforeSwap", function (event) {
    unfolded = Array.from(event.detail.target.querySelectorAll("details[id][open]"), function (part) { return part.id; });
  });
  document.addEventListener("htmx:afterSwap", function () {
    unfolded.forEach(function (id) {
      const part = document.getElementById(id);
      if (part) part.open = true;
    });
  });

  // A session that ended while the page was polling answers with the login page: show that, not a login inside a row.
  document.addEventListener("htmx:beforeSwap", function (event) {
    const address = event.detail.xhr.responseURL;
    if (address && new URL(address).pathname !== new URL(event.detail.requestConfig.path, location.href).pathname
        && event.detail.requestConfig.verb === "get") {
      event.detail.shouldSwap = false;
      location.reload();
    }
  });

  // Copying: on a page without TLS browsers have no clipboard to write to, so what is selected is copied the old way.
  function copyOldWay(text) {
    const range = document.createRange();
    range.selectNodeContents(text);
    const selection = document.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }
  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    const text = document.getElementById(button.dataset.copy);
    const word = button.textContent;
    if (!text) return;
    button.hidden = false;
    button.addEventListener("click", function () {
      function say(done) {
        button.textContent = done ? "Copied" : "Press Ctrl+C";
        setTimeout(function () { button.textContent = word; }, 2000);
      }
      if (navigator.clipboard) {
        navigator.clipboard.writeText(text.textContent).then(function () { say(true); }, function () { say(copyOldWay(text)); });
      } else {
        say(copyOldWay(text));
      }
    });
  });

  function reachable(yes) {
    const notice = document.getElementById("unreachable");
    if (notice) notice.hidden = yes;
  }
  document.addEventListener("htmx:sendError", function () { reachable(false); });
  document.addEventListener("htmx:timeout", function () { reachable(false); });
  document.addEventListener("htmx:afterOnLoad", function () { reachable(true); });
})();
