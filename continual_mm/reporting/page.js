"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const specs = JSON.parse(document.getElementById("specs").textContent);
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const draw = () => {
    const ink = dark() ? "#ececec" : "#1d1d1f";
    const rule = dark() ? "#444444" : "#dddddd";
    const axis = { labelColor: ink, titleColor: ink, gridColor: rule, domainColor: rule, tickColor: rule };
    const config = {
      background: "transparent",
      axis,
      view: { stroke: "transparent" },
      header: { labelColor: ink, titleColor: ink, labelFontSize: 12 },
      legend: { labelColor: ink, titleColor: ink, labelFontSize: 12, labelLimit: 300 },
      title: { color: ink },
      text: { color: ink },
    };
    for (const [id, spec] of Object.entries(specs)) {
      const copy = { ...spec, config: { ...(spec.config || {}), ...config } };
      window.vegaEmbed(document.getElementById(id), copy, { actions: false, renderer: "svg", ast: true });
    }
  };
  const show = () => {
    root.dataset.theme = dark() ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark()));
    draw();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    show();
  });
  show();
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.firstChild.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        heads.forEach((each) => each.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[column].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
          const known = Number(!isNaN(y)) - Number(!isNaN(x));
          if (isNaN(x) || isNaN(y)) return known || value(a).localeCompare(value(b)) * (up ? 1 : -1);
          return up ? x - y : y - x;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
  const open = [];
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details:not([open])")) {
      each.open = true;
      open.push(each);
    }
  });
  addEventListener("afterprint", () => open.splice(0).forEach((each) => (each.open = false)));
})();
