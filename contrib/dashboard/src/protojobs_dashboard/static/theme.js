// In the head, before anything is drawn: the theme that was chosen here, and that there is JavaScript at all.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  try {
    const theme = localStorage.getItem("protojobs-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  } catch { /* no storage: as the system */ }
})();
