"use strict";
(() => {
  const darkMode = matchMedia("(prefers-color-scheme: dark)");
  const darkColours = new Map(Object.entries(JSON.parse(document.getElementById("dark-colours").textContent)));
  const PRINTED_WIDTH = 660; // pixels between the margins of a sheet of A4

  // A colour anywhere in a figure is one of the light page's; on a dark page each gives way to its partner.
  const recoloured = (value, dark) => {
    if (typeof value === "string") return (dark && darkColours.get(value)) || value;
    if (Array.isArray(value)) return value.map((each) => recoloured(each, dark));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, recoloured(each, dark)]));
    }
    return value;
  };

  const figures = [...document.querySelectorAll(".drawing")];
  const options = {
    responsive: true,
    displaylogo: false,
    displayModeBar: matchMedia("(hover: hover) and (pointer: fine)").matches ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"],
  };
  const draw = (element, { dark = darkMode.matches, width } = {}) => {
    const { data, layout } = JSON.parse(document.getElementById(element.dataset.figure).textContent);
    const sized = { ...recoloured(layout, dark), width, autosize: !width };
    return Plotly.react(element, recoloured(data, dark), sized, options);
  };
  const drawAll = (how) => figures.forEach((element) => draw(element, how));

  // One after the other, so that the page can be read and scrolled from the first moment.
  const drawNext = (left) => {
    if (!left.length) {
      document.documentElement.dataset.drawn = "all";
      return;
    }
    draw(left[0], {}).then(() => setTimeout(drawNext, 0, left.slice(1)));
  };
  drawNext(figures);
  darkMode.addEventListener("change", () => drawAll({}));
  addEventListener("beforeprint", () => drawAll({ dark: false, width: PRINTED_WIDTH }));
  addEventListener("afterprint", () => {
    drawAll({});
    figures.forEach((element) => Plotly.Plots.resize(element));
  });

  const CONDITION = /^([^\s=!<>]+)(<=|>=|!=|=|<|>)(.*)$/;
  const holds = {
    "=": (a, b) => a === b, "!=": (a, b) => a !== b,
    "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  };

  for (const live of document.querySelectorAll(".live")) {
    const table = live.querySelector("table");
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const rows = [...body.rows];
    const [field, whole] = live.querySelectorAll("input");
    const told = live.querySelector("output");
    const column = new Map(heads.map((head, place) => [head.dataset.name, place]));

    // Numbers as they are, not as they are shown; text in small letters; missing values last, whatever the order.
    const valueOf = (cell) => ("value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.toLowerCase());
    const missing = (value) => value === "";
    const compare = (a, b) => {
      if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
      return typeof a === "number" ? -1 : 1;
    };

    const sortBy = (place) => {
      const head = heads[place];
      const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      const sign = direction === "ascending" ? 1 : -1;
      const keyed = rows.map((row, order) => [valueOf(row.cells[place]), order, row]);
      keyed.sort(([a, first], [b, second]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b) || first - second;
        return sign * compare(a, b) || first - second;
      });
      heads.forEach((each) => each.setAttribute("aria-sort", each === head ? direction : "none"));
      body.append(...keyed.map(([, , row]) => row));
    };

    const test = (text) => {
      const [, name, sign, wanted] = CONDITION.exec(text) || [];
      if (!name) return (row) => row.textContent.toLowerCase().includes(text.toLowerCase());
      if (!column.has(name)) return null;
      const other = wanted !== "" && !Number.isNaN(Number(wanted)) ? Number(wanted) : wanted.toLowerCase();
      return (row) => {
        const value = valueOf(row.cells[column.get(name)]);
        if (sign.length === 1 && sign !== "=" || sign === "<=" || sign === ">=") {
          if (typeof value !== typeof other || missing(value)) return false;
        }
        return holds[sign](value, other);
      };
    };

    const filter = () => {
      const tests = field.value.split(/\s+/).filter(Boolean).map(test);
      const unknown = tests.includes(null);
      field.setAttribute("aria-invalid", String(unknown));
      let shown = 0;
      for (const row of rows) {
        row.hidden = !unknown && !tests.every((each) => each(row));
        shown += !row.hidden;
      }
      told.textContent = unknown ? "no such column" : `${shown} of ${rows.length} rows`;
    };

    heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => sortBy(place)));
    field.addEventListener("input", filter);
    whole.addEventListener("change", () => table.classList.toggle("whole", whole.checked));
  }
})();
