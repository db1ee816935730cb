/** Light, dark, or what the system has. The one thing that is not in the URL: it is about the reader, not about the view. */

export type Theme = "system" | "light" | "dark";

const KEY = "lateen-theme";

function stored(): Theme {
  const value = localStorage.getItem(KEY);
  return value === "light" || value === "dark" ? value : "system";
}

class Chosen {
  theme: Theme = $state(stored());
  /** Counts up whenever colours change, for what is painted and not styled. */
  painted = $state(0);

  set(theme: Theme) {
    this.theme = theme;
    localStorage.setItem(KEY, theme);
    applyTheme();
    this.painted += 1;
  }
}

export const chosen = new Chosen();

export function applyTheme() {
  const root = document.documentElement;
  if (chosen.theme === "system") delete root.dataset.theme;
  else root.dataset.theme = chosen.theme;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (chosen.painted += 1));
