"use strict";
// Before anything is drawn, so that a page in light does not flash dark.
{
  const chosen = localStorage.getItem("safelight.theme");
  const light = matchMedia("(prefers-color-scheme: light)").matches;
  document.documentElement.dataset.theme = chosen ?? (light ? "light" : "dark");
}
