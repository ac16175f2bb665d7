// Sets the chosen theme before the page is painted; runs alone, before the rest.

const chosen = (() => {
  try {
    return localStorage.getItem('herald.theme');
  } catch {
    return null;
  }
})();
if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
