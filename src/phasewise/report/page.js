"use strict";
const number = text => { const found = text.replace(/[,\s]/g, "").replace("−", "-").match(/-?\d+(\.\d+)?(e[-+]?\d+)?/i); return found ? Number(found[0]) : NaN; };
for (const table of document.querySelectorAll("table.numbers")) {
  table.querySelectorAll("th").forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes); head.append(button);
    let up = false;
    button.addEventListener("click", () => {
      up = !up;
      const rows = [...table.tBodies[0].rows], text = row => row.cells[column].textContent;
      const order = (a, b) => {
        const x = number(text(a)), y = number(text(b)), words = head.classList.contains("text");
        if (!words && (isNaN(x) || isNaN(y))) return isNaN(x) - isNaN(y);
        return (up ? 1 : -1) * (words ? text(a).localeCompare(text(b)) : x - y);
      };
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      table.tBodies[0].append(...rows.sort(order));
    });
  });
}
for (const figure of document.querySelectorAll("figure[id]")) {
  const button = document.createElement("button");
  button.className = "save"; button.textContent = "Save as SVG";
  button.addEventListener("click", () => {
    const svg = [...figure.querySelectorAll("svg")].find(one => one.getClientRects().length).cloneNode(true);
    svg.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const text = new XMLSerializer().serializeToString(svg).replace(/var\(--\w+, (#\w+)\)/g, "$1");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    link.download = figure.id.replace("fig-", "") + ".svg"; link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  figure.append(button);
}
