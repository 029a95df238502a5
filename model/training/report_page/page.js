// Sorts and filters the labels; without it the page only stands still.
const table = document.getElementById("labels");
const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;

/** Numbers by size, words by letter; what is undefined comes last either way. */
function compare(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = Number(a) - Number(b);
  return direction * (Number.isNaN(difference) ? a.localeCompare(b) : difference);
}

table.tHead.addEventListener("click", ({ target }) => {
  const heading = target.closest("th");
  if (!heading) return;
  const descending = heading.ariaSort === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.ariaSort = descending ? "descending" : "ascending";
  const rows = [...table.tBodies[0].rows];
  const column = heading.cellIndex;
  rows.sort((a, b) => compare(value(a, column), value(b, column), descending ? -1 : 1));
  table.tBodies[0].append(...rows);
});

document.getElementById("filter").addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase();
  for (const item of document.querySelectorAll("[data-label]")) {
    item.hidden = !item.dataset.label.toLowerCase().includes(wanted);
  }
});

// One sound at a time.
addEventListener("play", ({ target }) => {
  for (const player of document.querySelectorAll("audio")) if (player !== target) player.pause();
}, true);
