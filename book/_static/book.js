// A formula in running text cannot break: one wider than its line scrolls by itself instead of widening the page.
window.addEventListener("load", () => {
  if (!window.MathJax || !MathJax.startup) return;
  const mark = () => document.querySelectorAll("article span.math mjx-container").forEach((formula) => {
    const box = formula.closest("p, li, td, dd, figcaption, div");
    formula.classList.remove("wide");
    formula.classList.toggle("wide", formula.getBoundingClientRect().width > box.clientWidth);
  });
  MathJax.startup.promise.then(mark);
  window.addEventListener("resize", mark);
});
