// Sorts the tables that say so by the column whose heading is pressed. Without scripts they stay as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const isNumber = heading.classList.contains("n");
      const before = heading.getAttribute("aria-sort");
      const falling = before ? before === "ascending" : isNumber;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const body = table.tBodies[0];
      const valueOf = (row) => {
        const { value } = row.cells[column].dataset;
        return isNumber ? (value === "" ? NaN : Number(value)) : row.cells[column].textContent.trim();
      };
      const compare = (one, other) => {
        const [a, b] = [valueOf(one), valueOf(other)];
        if (!isNumber) return falling ? b.localeCompare(a) : a.localeCompare(b);
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what is not defined, last
        return falling ? b - a : a - b;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
