"use strict";
// Uploads with progress, one file after the other, and times in the visitor's zone. Without it the page still works.
(() => {
  const PRECHECK_SIZE = 1 << 20; // Bytes from which it pays to ask first whether the name is taken.
  const $ = (id) => document.getElementById(id);
  document.documentElement.classList.add("js");

  function localizeTimes() {
    const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
    for (const time of document.querySelectorAll("time")) time.textContent = format.format(new Date(time.dateTime));
  }
  localizeTimes();
  const drop = $("drop");
  if (!drop) return;

  const input = $("upload-input");
  const queue = [];
  let batch = []; // What the progress bar counts: everything since the queue was last empty.
  let running = false;

  function showSize(size) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
    return `${size.toFixed(unit ? 1 : 0)} ${units[unit]}`;
  }

  function addButton(upload, label, action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", action);
    upload.buttons.append(button);
  }

  function setState(upload, kind, text) {
    upload.kind = kind;
    upload.row.className = kind;
    upload.state.textContent = text;
    upload.buttons.replaceChildren();
    if (kind === "waiting" || kind === "running") {
      addButton(upload, "Cancel", () => (upload.cancel ? upload.cancel() : setState(upload, "failed", "Cancelled.")));
    }
  }

  function fail(upload, text, retry, overwrite) {
    setState(upload, "failed", text);
    addButton(upload, retry, () => enqueue(upload, overwrite));
    addButton(upload, "Dismiss", () => { upload.row.remove(); tidy(); });
  }

  function tidy() {
    $("transfers").hidden = !$("uploads").children.length;
  }

  function showProgress() {
    const counted = batch.filter((upload) => upload.kind !== "failed");
    const total = counted.reduce((sum, upload) => sum + upload.file.size, 0);
    const sent = counted.reduce((sum, upload) => sum + upload.sent, 0);
    const done = counted.filter((upload) => upload.kind === "done").length;
    $("progress").hidden = $("summary").hidden = !counted.length;
    $("progress").max = total || 1;
    $("progress").value = total ? sent : counted.length && done === counted.length ? 1 : 0;
    $("summary").textContent = `${done} of ${counted.length} files, ${showSize(sent)} of ${showSize(total)}`;
  }

  function add(file) {
    const row = document.createElement("li");
    const [name, state, buttons] = ["file", "state", "buttons"].map((kind) => {
      const span = document.createElement("span");
      span.className = kind;
      row.append(span);
      return span;
    });
    name.textContent = file.name;
    const upload = { file, row, state, buttons, sent: 0, kind: "", cancel: null };
    $("uploads").append(row);
    $("transfers").hidden = false;
    return upload;
  }

  function enqueue(upload, overwrite) {
    upload.overwrite = overwrite;
    upload.sent = 0;
    setState(upload, "waiting", "Waiting");
    if (!batch.includes(upload)) batch.push(upload);
    queue.push(upload);
    work();
  }

  async function work() {
    if (running) return;
    running = true;
    while (queue.length) {
      const upload = queue.shift();
      if (upload.kind === "waiting") await run(upload);
      showProgress();
    }
    running = false;
    batch = [];
    await refresh();
  }

  async function run(upload) {
    const url = "./" + encodeURIComponent(upload.file.name);
    setState(upload, "running", "Starting");
    if (!upload.overwrite && upload.file.size >= PRECHECK_SIZE && (await isTaken(url))) {
      fail(upload, "This name exists already.", "Replace", true);
      return;
    }
    if (upload.kind === "running") await put(upload, url);
  }

  async function isTaken(url) {
    try {
      return (await fetch(url, { method: "HEAD", cache: "no-store" })).ok;
    } catch {
      return false; // The upload itself will say what is wrong.
    }
  }

  function put(upload, url) {
    return new Promise((resolve) => {
      const request = new XMLHttpRequest();
      const started = performance.now();
      upload.cancel = () => request.abort();
      request.upload.addEventListener("progress", (event) => {
        upload.sent = event.loaded;
        const rate = event.loaded / Math.max(0.001, (performance.now() - started) / 1000);
        upload.state.textContent = `${showSize(event.loaded)} of ${showSize(event.total)}, ${showSize(rate)}/s`;
        showProgress();
      });
      request.addEventListener("load", () => settle(upload, request));
      request.addEventListener("abort", () => fail(upload, "Cancelled.", "Retry", upload.overwrite));
      request.addEventListener("error", () =>
        fail(upload, "The connection was lost, or the Studio refused the file.", "Retry", upload.overwrite));
      request.addEventListener("loadend", () => { upload.cancel = null; resolve(); });
      request.open("PUT", url + (upload.overwrite ? "?overwrite=1" : ""));
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("Content-Type", "application/octet-stream");
      request.send(upload.file);
    });
  }

  function settle(upload, request) {
    if (request.status >= 200 && request.status < 300) {
      upload.sent = upload.file.size;
      setState(upload, "done", "Done, " + showSize(upload.file.size));
      return;
    }
    let text = `The upload was answered with ${request.status} ${request.statusText}.`;
    try {
      text = JSON.parse(request.responseText).error || text;
    } catch {
      // Not our answer but that of something on the way; the status has to do.
    }
    const taken = request.status === 409;
    fail(upload, text, taken ? "Replace" : "Retry", taken || upload.overwrite);
  }

  async function refresh() {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("listing");
      if (!answer.ok || !fresh) return;
      $("listing").replaceWith(fresh);
      localizeTimes();
    } catch {
      // The old listing stays; the next look at the page shows the new one.
    }
  }

  input.addEventListener("change", () => {
    for (const file of input.files) enqueue(add(file), false);
    input.value = "";
  });

  let depth = 0; // Entering a child leaves its parent: count, or the zone flickers.
  const carriesFiles = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
  window.addEventListener("dragenter", (event) => {
    if (carriesFiles(event)) { depth += 1; drop.classList.add("over"); }
  });
  window.addEventListener("dragleave", (event) => {
    if (carriesFiles(event) && (depth -= 1) <= 0) { depth = 0; drop.classList.remove("over"); }
  });
  window.addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    drop.classList.remove("over");
    for (const item of event.dataTransfer.items) {
      const entry = item.webkitGetAsEntry ? item.webkitGetAsEntry() : null;
      const file = item.getAsFile();
      if (!file) continue;
      const upload = add(file);
      if (entry && entry.isDirectory) {
        setState(upload, "failed", "Folders cannot be uploaded: drop the files in it, or an archive.");
        addButton(upload, "Dismiss", () => { upload.row.remove(); tidy(); });
      } else {
        enqueue(upload, false);
      }
    }
  });

  window.addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });
})();
