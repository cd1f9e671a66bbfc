// What columns of a table are: units that go with the feature chosen; only what was changed is sent.
"use strict";
(() => {
  const form = document.getElementById("columns");
  const problem = document.getElementById("problem");
  const rows = [...form.querySelectorAll("tr[data-column]")];

  const units = (row) => {
    const feature = row.querySelector("[name=feature]"), unit = row.querySelector("[name=unit]");
    const own = feature.selectedOptions[0].dataset.units || feature.querySelector(`option[value="${CSS.escape(feature.value)}"][data-units]`)?.dataset.units;
    const kept = unit.value || unit.dataset.unit;
    unit.replaceChildren();
    unit.hidden = !own;
    if (!own) return;
    const found = feature.value === feature.dataset.first && unit.dataset.found;
    unit.append(new Option(found ? found : "find out", ""));
    for (const each of own.split("|")) if (each !== found) unit.append(new Option(each, each, false, each === kept));
  };
  for (const row of rows) {
    const feature = row.querySelector("[name=feature]"), unit = row.querySelector("[name=unit]");
    feature.dataset.first = feature.value;
    units(row);
    unit.dataset.first = unit.value;
    feature.addEventListener("change", () => { units(row); mark(row); });
    unit.addEventListener("change", () => mark(row));
  }
  const changed = (row) => {
    const feature = row.querySelector("[name=feature]"), unit = row.querySelector("[name=unit]");
    return feature.value !== feature.dataset.first || unit.value !== (unit.dataset.first || "");
  };
  const mark = (row) => row.toggleAttribute("data-changed", changed(row));

  const sheet = document.getElementById("sheet");
  // Of another sheet the columns are others.
  sheet?.addEventListener("change", () => { rows.length = 0; form.requestSubmit(form.querySelector("[value=no]")); });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const predict = event.submitter ? event.submitter.value === "yes" : true;
    const columns = {};
    for (const row of rows) {
      if (!("chosen" in row.dataset) && !changed(row)) continue;
      const unit = row.querySelector("[name=unit]");
      columns[row.dataset.column] = { feature: row.querySelector("[name=feature]").value, unit: unit.hidden ? null : unit.value || null };
    }
    const buttons = form.querySelectorAll("button");
    buttons.forEach((each) => { each.disabled = true; });
    problem.hidden = true;
    try {
      const answer = await fetch(form.dataset.api, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ columns, predict, sheet: sheet ? sheet.value : null }),
      });
      if (!answer.ok) throw new Error((await answer.json()).error);
      if (predict) location.assign(form.dataset.done); else location.reload();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      problem.scrollIntoView({ block: "center" });
      buttons.forEach((each) => { each.disabled = false; });
    }
  });
})();
