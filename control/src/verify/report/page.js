"use strict";
const body = document.querySelector("#queries tbody");
const rows = Array.from(body.rows);
const filter = document.getElementById("filter");
const pills = Array.from(document.querySelectorAll("button.pill"));
let verdict = "";
function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = (verdict && row.dataset.verdict !== verdict) || !words.every((word) => text.includes(word));
    if (!row.hidden) count++;
  }
  document.getElementById("shown").textContent = count === rows.length ? `${count} queries` : `${count} of ${rows.length} queries`;
}
filter.addEventListener("input", show);
for (const pill of pills) {
  pill.addEventListener("click", () => {
    verdict = verdict === pill.dataset.verdict ? "" : pill.dataset.verdict;
    for (const other of pills) other.setAttribute("aria-pressed", String(other.dataset.verdict === verdict));
    show();
    if (verdict) document.getElementById("filter").scrollIntoView({ block: "start" });
  });
}
document.querySelectorAll("#queries th").forEach((heading, column) => {
  heading.tabIndex = 0;
  const sort = () => {
    const up = heading.getAttribute("aria-sort") ? heading.getAttribute("aria-sort") !== "ascending" : heading.dataset.type !== "number";
    document.querySelectorAll("#queries th").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value;
    const order = (a, b) => (heading.dataset.type ? value(a) - value(b) : a.cells[column].textContent.localeCompare(b.cells[column].textContent));
    rows.sort((a, b) => (up ? order(a, b) : order(b, a)));
    body.append(...rows);
  };
  heading.addEventListener("click", sort);
  heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
});
show();
