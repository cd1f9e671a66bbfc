// Light or dark as the system has it, unless the user says otherwise.
"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const now = () => kept() || (system.matches ? "dark" : "light");
  const set = () => {
    root.dataset.theme = now();
    const button = document.getElementById("theme");
    if (button) button.textContent = now() === "dark" ? "Light" : "Dark";
    root.dispatchEvent(new Event("themechange"));
  };
  set();
  system.addEventListener("change", set);
  addEventListener("DOMContentLoaded", () => {
    set();
    document.getElementById("theme")?.addEventListener("click", () => {
      try { localStorage.setItem("theme", now() === "dark" ? "light" : "dark"); } catch { /* private */ }
      set();
    });
  });
})();
