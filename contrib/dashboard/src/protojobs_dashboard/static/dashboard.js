// Live updates, keyboard, ticking rows, the theme. Every page and action works without this file.
(() => {
  "use strict";
  const root = document.documentElement;
  const region = document.getElementById("live-region");
  const POLL_MS = 5000;
  const STALE_MS = 30000; // also while signals come: ages grow old

  const stored = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const store = (key, value) => { try { localStorage.setItem(key, value); } catch { /* for this page only */ } };

  // ------------------------------------------------------------------------------------------------ live updates
  let isPausedByHand = false;
  let isConnected = false;
  let askedAt = Date.now();

  const ticked = () => document.querySelectorAll('#ticked input[name="ids"]:checked').length;
  const isTyping = (target) => target instanceof Element && target.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");
  const isReading = () => Boolean(region && region.querySelector("details[open]:not([data-first])"))
    || String(getSelection()) !== "" || (region && region.contains(document.activeElement) && isTyping(document.activeElement));
  const isPaused = () => isPausedByHand || ticked() > 0 || document.querySelector("dialog[open]") !== null || isReading();

  const showLive = () => {
    const button = document.getElementById("live");
    if (!button) return;
    const paused = isPaused();
    button.setAttribute("aria-pressed", String(!isPausedByHand));
    button.classList.toggle("paused", paused);
    document.getElementById("live-words").textContent = paused ? "Paused" : "Live";
  };
  const ask = () => document.body.dispatchEvent(new CustomEvent("changed"));

  document.addEventListener("htmx:before:request", (event) => {
    if (!region?.contains(event.target) || event.target.id === "signals") return;
    if (event.detail.ctx?.sourceEvent?.type === "load") return; // a piece that comes with its page
    if (isPaused() || document.hidden) event.preventDefault();
    else if (event.target === region) askedAt = Date.now();
  });
  document.addEventListener("htmx:sse:after:connection", (event) => { isConnected = event.detail.connection.status === 200; });
  document.addEventListener("htmx:sse:error", () => { isConnected = false; });
  document.addEventListener("htmx:sse:close", () => { isConnected = false; });
  if (region && region.hasAttribute("hx-get")) {
    setInterval(() => {
      showLive();
      const isFollowing = document.getElementById("follow") !== null;
      const wait = isFollowing ? 1000 : isConnected ? STALE_MS : POLL_MS;
      if (!document.hidden && Date.now() - askedAt >= wait) ask();
    }, 1000);
  } else {
    document.getElementById("live")?.setAttribute("hidden", "");
  }
  const toggleLive = () => { isPausedByHand = !isPausedByHand; showLive(); if (!isPaused()) ask(); };
  document.getElementById("live")?.addEventListener("click", toggleLive);

  // -------------------------------------------------------------------------------------------------------- theme
  const THEMES = ["system", "light", "dark"];
  const themeButton = document.getElementById("theme");
  const showTheme = (theme) => {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    themeButton?.setAttribute("aria-label", `Theme: ${theme === "system" ? "as the system" : theme}`);
  };
  const nextTheme = () => {
    const theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    store("protojobs-theme", theme);
    showTheme(theme);
  };
  showTheme(root.dataset.theme ?? "system");
  themeButton?.addEventListener("click", nextTheme);

  // ------------------------------------------------------------------------------------------------- ticking rows
  const showTicked = () => {
    const count = document.getElementById("ticked-count");
    if (count) count.textContent = String(ticked());
    document.querySelectorAll('[data-testid="bulk-ticked"] button').forEach((one) => { one.disabled = ticked() === 0; });
    const boxes = document.querySelectorAll('#ticked input[name="ids"]');
    const all = document.getElementById("tick-all");
    if (all) {
      all.checked = boxes.length > 0 && ticked() === boxes.length;
      all.indeterminate = ticked() > 0 && ticked() < boxes.length;
    }
    showLive();
  };
  document.addEventListener("change", (event) => {
    if (event.target.id === "tick-all") {
      document.querySelectorAll('#ticked input[name="ids"]').forEach((box) => { box.checked = event.target.checked; });
    }
    if (event.target.id === "keys-on") store("protojobs-keys", event.target.checked ? "on" : "off");
    showTicked();
  });
  document.addEventListener("htmx:after:swap", showTicked);
  addEventListener("pageshow", showTicked); // a page that is come back to keeps its ticks

  // ----------------------------------------------------------------------------------------------------- keyboard
  const help = document.getElementById("help");
  const keysOn = document.getElementById("keys-on");
  if (keysOn) keysOn.checked = stored("protojobs-keys") !== "off";
  document.getElementById("help-button")?.addEventListener("click", () => help.showModal());
  help?.addEventListener("close", showLive);

  let row = null; // the id of the row that the keys are at
  let isGoing = false;
  const rows = () => [...document.querySelectorAll("table.rows tbody tr")];
  const at = () => rows().findIndex((one) => one.id !== "" && one.id === row);
  const move = (step) => {
    const all = rows();
    if (all.length === 0) return;
    const next = all[Math.min(all.length - 1, Math.max(0, at() + step))];
    row = next.id;
    showRow();
    (next.querySelector("a") ?? next).focus();
    next.scrollIntoView({ block: "nearest" });
  };
  const showRow = () => rows().forEach((one) => one.classList.toggle("here", one.id !== "" && one.id === row));
  document.addEventListener("htmx:after:swap", showRow);
  const go = (key) => document.querySelector(`.rail a[data-key="${CSS.escape(key)}"]`)?.click();
  const KEYS = {
    "/": () => (document.getElementById("q") ?? document.getElementById("find"))?.focus(),
    "?": () => help?.showModal(),
    g: () => { isGoing = true; setTimeout(() => { isGoing = false; }, 1500); },
    j: () => move(1),
    k: () => move(-1),
    x: () => rows()[at()]?.querySelector('input[name="ids"]')?.click(),
    Enter: () => rows()[at()]?.querySelector("a")?.click(),
    p: toggleLive,
    t: nextTheme,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !keysOn?.checked) return;
    if (isTyping(event.target) || help?.open) return;
    if (event.key === "Enter" && event.target !== document.body) return; // a link or a button of its own
    if (isGoing) {
      isGoing = false;
      event.preventDefault();
      go(event.key);
    } else if (Object.hasOwn(KEYS, event.key)) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });
  showLive();
})();
