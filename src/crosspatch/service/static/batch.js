// Follows a batch until nothing more happens; filters without loading the page anew.
"use strict";
(() => {
  const PAUSE = 700;
  let live = document.getElementById("live");
  const batch = live.dataset.batch;
  const api = `/api/v1/batches/${batch}`;
  const followed = live.dataset.finished === "no";
  // The server knows where someone who gave one file wants to go when it is read, but only once.
  const fresh = new URLSearchParams(location.search).has("new");
  if (fresh) history.replaceState(null, "", location.pathname);

  // Only what changed, so that focus and open remarks stay where they are.
  const swap = async (address) => {
    const answer = await fetch(address);
    if (!answer.ok) { location.reload(); return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.getElementById("live");
    if (!next) { location.reload(); return; }
    const open = [...live.querySelectorAll("details[open]")].map((each) => each.parentElement.dataset.file);
    const focus = document.activeElement;
    const held = focus && live.contains(focus) ? (focus.name || focus.id) : null;
    const typed = held && focus.value !== undefined ? [focus.value, focus.selectionStart] : null;
    const sending = document.getElementById("sending");
    if (sending && !sending.hidden) next.querySelector("#sending").replaceWith(sending);
    for (const part of ["#upload", "#problem"]) {
      const old = live.querySelector(part), its = next.querySelector(part);
      if (old && its) its.replaceWith(old);
    }
    for (const each of next.querySelectorAll("[data-file] > details")) {
      if (open.includes(each.parentElement.dataset.file)) each.open = true;
    }
    live.replaceWith(document.importNode(next, true));
    live = document.getElementById("live");
    document.title = page.title;
    if (held) {
      const again = live.querySelector(`[name="${CSS.escape(held)}"], #${CSS.escape(held)}`);
      if (again) {
        again.focus();
        if (typed && again.type === "search") { again.value = typed[0]; again.setSelectionRange(typed[1], typed[1]); }
      }
    }
  };

  const follow = async () => {
    let last = "";
    while (live.dataset.finished === "no") {
      await new Promise((go) => setTimeout(go, PAUSE));
      let state;
      try {
        const answer = await fetch(api);
        if (answer.status === 404) { location.reload(); return; }
        state = await answer.json();
      } catch { continue; }
      if (state.finished && fresh && state.files.length === 1) {
        location.replace(`${location.pathname}?new=true`);
        return;
      }
      const now = JSON.stringify(state.files.map((each) => [each.file, each.state, each.stage, each.rows]));
      const typing = document.activeElement && document.activeElement.closest("form.reading, #filter");
      if (now !== last && !(typing && !state.finished)) await swap(location.href);
      last = now;
    }
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.id === "filter") {
      event.preventDefault();
      const given = [...new FormData(form)].filter(([, value]) => value);
      show(`/batches/${batch}?${new URLSearchParams(given)}`);
    } else if (form.dataset.reading) {
      event.preventDefault();
      readAgain(form);
    }
  });
  const show = async (address) => { history.pushState(null, "", address); await swap(address); };
  addEventListener("popstate", () => swap(location.href));
  let timer;
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (!form || form.id !== "filter") return;
    clearTimeout(timer);
    timer = setTimeout(() => document.getElementById("filter").requestSubmit(), event.target.type === "search" ? 350 : 0);
  });
  document.addEventListener("click", async (event) => {
    const sort = event.target.closest("th a, .pages a");
    if (sort && live.contains(sort) && sort.href.includes("?")) {
      event.preventDefault();
      await show(sort.href);
      return;
    }
    const remove = event.target.closest("[data-remove]");
    if (remove) {
      remove.disabled = true;
      await fetch(`${api}/files/${remove.dataset.remove}`, { method: "DELETE" });
      await swap(location.href);
      return;
    }
    if (event.target.id === "delete" && confirm("Delete these files and their results now?")) {
      await fetch(api, { method: "DELETE" });
      location.assign("/");
    }
  });

  const readAgain = async (form) => {
    const problem = form.querySelector(".problem");
    try {
      const answer = await fetch(`${api}/files/${form.dataset.reading}/reading`, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(window.crosspatch.readingOf(form)),
      });
      if (answer.ok) { location.reload(); return; }
      problem.textContent = (await answer.json()).error;
    } catch (error) { problem.textContent = error.message; }
    problem.hidden = false;
  };

  if (followed) follow();
})();
