// Files are sent one by one, as they are; what becomes of them is on the batch's page.
"use strict";
(() => {
  const AT_ONCE = 3;
  // How recordings are read, from the fields of a form; what is left empty is not said.
  const readingOf = (form) => {
    const given = Object.fromEntries([...new FormData(form)].filter(([name, value]) => name !== "species" && value !== ""));
    for (const name of ["step_start", "step_end", "junction_potential", "offset_mv"]) {
      if (name in given) given[name] = Number(given[name]);
    }
    if ("amplitudes" in given) {
      given.amplitudes = given.amplitudes.split(/[\s,;]+/).filter(Boolean).map(Number);
      if (!given.amplitudes.every(Number.isFinite)) throw new Error("Amplitudes are numbers in pA, separated by commas.");
    }
    return given;
  };
  window.crosspatch = { readingOf };

  const by = (id) => document.getElementById(id);
  const live = by("live");
  const input = by("files"), drop = by("drop"), problem = by("problem");
  if (!input) return;

  const say = (line) => { problem.textContent = line; problem.hidden = !line; };

  const ask = async (method, path, body) => {
    const answer = await fetch(`/api/v1${path}`, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const said = answer.status === 204 ? {} : await answer.json();
    if (!answer.ok) throw new Error(said.error || answer.statusText);
    return said;
  };

  const batchOf = async () => {
    if (live) return live.dataset.batch;
    const chosen = document.querySelector("input[name=species]:checked");
    const species = (chosen && chosen.value) || null;
    return (await ask("POST", "/batches", { species, ...readingOf(by("upload")) })).batch;
  };

  const line = (file) => {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = file.name;
    const size = document.createElement("span");
    size.className = "size quiet";
    size.textContent = file.size >= 1e6 ? `${(file.size / 1e6).toPrecision(3)} MB` : `${Math.ceil(file.size / 1e3)} kB`;
    const state = document.createElement("span");
    state.className = "state";
    state.textContent = "waiting";
    const cancel = document.createElement("button");
    cancel.type = "button";
    cancel.className = "plain";
    cancel.textContent = "Cancel";
    cancel.setAttribute("aria-label", `Cancel ${file.name}`);
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `${file.name} sent`);
    item.append(name, size, state, cancel, bar);
    by("list").append(item);
    return { item, state, cancel, bar };
  };

  // fetch cannot say how much of a body is sent.
  const sendOne = (batch, file, row) => new Promise((done) => {
    const request = new XMLHttpRequest();
    row.cancel.onclick = () => request.abort();
    request.upload.onprogress = (event) => {
      row.bar.value = event.total ? event.loaded / event.total : 0;
      row.state.textContent = `${Math.round(100 * row.bar.value)} % sent`;
    };
    const end = (text, ok) => {
      row.state.textContent = text;
      row.item.dataset.state = ok ? "done" : "failed";
      row.cancel.remove();
      row.bar.remove();
      done(ok);
    };
    request.onload = () => {
      if (request.status === 201) return end("sent", true);
      let said = request.statusText;
      try { said = JSON.parse(request.responseText).error; } catch { /* not ours */ }
      return end(said, false);
    };
    request.onerror = () => end("not sent: the server does not answer, or refused it while it came", false);
    request.onabort = () => end("cancelled", false);
    request.open("POST", `/api/v1/batches/${batch}/files?columns=ask&name=${encodeURIComponent(file.name.slice(0, 900))}`);
    request.send(file);
  });

  const send = async (files) => {
    files = [...files];
    if (!files.length) return;
    say("");
    by("sending").hidden = false;
    let batch;
    try { batch = await batchOf(); } catch (error) { say(error.message); return; }
    const rows = files.map(line);
    rows.forEach((row, k) => { row.cancel.onclick = () => { files[k] = null; row.state.textContent = "cancelled"; row.item.dataset.state = "failed"; row.cancel.remove(); row.bar.remove(); }; });
    const waiting = files.keys();
    let good = 0, bad = 0;
    const sender = async () => {
      for (const k of waiting) {
        if (files[k] === null) { bad += 1; continue; }
        if (await sendOne(batch, files[k], rows[k])) good += 1; else bad += 1;
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, sender));
    if (!good) {
      say(bad === 1 ? "The file was not taken; see why below." : "None of the files was taken; see why below.");
      if (!live) ask("DELETE", `/batches/${batch}`).catch(() => {});
      return;
    }
    if (bad) {
      say(`${bad} of ${bad + good} files were not taken; see why below.`);
      const on = document.createElement("p");
      const link = document.createElement("a");
      link.href = `/batches/${batch}?new=true`;
      link.textContent = `Go on with the other ${good}`;
      on.append(link);
      by("sending").append(on);
      link.focus();
      return;
    }
    location.assign(live ? `/batches/${batch}` : `/batches/${batch}?new=true`);
  };

  by("choose").addEventListener("click", () => input.click());
  input.addEventListener("change", () => { send(input.files); input.value = ""; });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    send(event.dataTransfer.files);
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        const batch = await batchOf();
        await ask("POST", `/batches/${batch}/examples/${button.dataset.example}`);
        location.assign(`/batches/${batch}?new=true`);
      } catch (error) { say(error.message); button.disabled = false; }
    });
  }
})();
