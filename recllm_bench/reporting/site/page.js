"use strict";
(() => {
  const root = document.documentElement, body = document.body;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const fold = text => text.normalize("NFKD").toLowerCase();

  // Leaderboards: a row and the printed row beneath it are one tbody, and move together.
  function sortBoard(board, key, down) {
    const table = board.querySelector("table");
    const value = row => {
      if (key === "name") return row.dataset.name;
      const cell = row.querySelector(`td[data-c="${key}"]`);
      return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
    };
    const rows = [...table.tBodies].map(row => [value(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = key === "name" ? a.localeCompare(b) : a - b;
      return down ? -order : order;
    });
    table.append(...rows.map(([, row]) => row));
    all("thead th", table).forEach(head => {
      if (head.querySelector("button").dataset.sort === key) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    board.querySelector("[data-order]").value = key;
  }

  function filterBoard(board) {
    const words = fold(board.querySelector("[data-search]").value).split(/\s+/).filter(Boolean);
    const choice = board.querySelector("select[data-kind]"), kind = choice ? choice.value : "";
    const rows = [...board.querySelector("table").tBodies];
    rows.forEach(row => {
      const own = row.dataset.kind === "method" ? "method" : "control";
      row.hidden = (kind !== "" && kind !== own) || !words.every(word => fold(row.dataset.name).includes(word));
    });
    const shown = rows.filter(row => !row.hidden).length;
    board.querySelector("[data-count]").textContent = shown === rows.length ? `${shown} row${shown === 1 ? "" : "s"}` : `${shown} of ${rows.length} rows`;
  }

  all("[data-board]").forEach(board => {
    board.querySelector("[data-search]").addEventListener("input", () => filterBoard(board));
    filterBoard(board);
    const order = board.querySelector("[data-order]");
    if (!order) return;
    all("thead button", board).forEach(button => button.addEventListener("click", () => {
      const now = button.parentElement.getAttribute("aria-sort");
      const first = button.dataset.sort !== "name" && button.dataset.lower !== "1";
      sortBoard(board, button.dataset.sort, now ? now === "ascending" : first);
    }));
    order.addEventListener("change", () => sortBoard(board, order.value, order.value !== "name" && order.selectedOptions[0].dataset.lower !== "1"));
    board.querySelector("select[data-kind]").addEventListener("change", () => filterBoard(board));
    all("[data-column]", board).forEach(box => box.addEventListener("change", () => {
      all(`[data-c="${box.dataset.column}"]`, board).forEach(cell => { cell.hidden = !box.checked; });
    }));
  });

  // Compressed text of the page, read only when it is wanted.
  async function inflate(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), sign => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // Charts: drawn when they come near the window; the script that draws is unpacked for the first of them.
  let drawing = null;
  const plotly = () => drawing ||= inflate("plotly").then(text => {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    return window.Plotly;
  });
  const colour = name => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  function themed(plot) {
    const changes = { "font.color": colour("ink"), paper_bgcolor: "#0000", plot_bgcolor: "#0000", "hoverlabel.bgcolor": colour("paper"), "hoverlabel.font.color": colour("ink") };
    ["xaxis", "yaxis"].forEach(axis => Object.assign(changes, { [`${axis}.gridcolor`]: colour("line"), [`${axis}.zerolinecolor`]: colour("line"), [`${axis}.linecolor`]: colour("line") }));
    (plot.layout.shapes || []).forEach((_, place) => { changes[`shapes[${place}].line.color`] = colour("soft"); });
    return changes;
  }
  async function draw(figure) {
    if (figure.dataset.drawn) return;
    figure.dataset.drawn = "1";
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    const plot = figure.querySelector(".plot");
    const named = data.filter(trace => trace.showlegend !== false && trace.name).length;
    const legend = layout.showlegend === false ? 0 : 22 * Math.ceil(named / (plot.clientWidth > 700 ? 3 : 1));
    const height = (layout.height || 360) + legend;
    plot.style.minHeight = `${height}px`;
    const Plotly = await plotly();
    await Plotly.newPlot(plot, data, {
      ...layout, height, font: { family: "system-ui, sans-serif", size: 12 }, margin: { l: 50, r: 15, t: 20, b: 50 },
      legend: { orientation: "h", y: -70 / Math.max(height - legend - 70, 100), yanchor: "top" },
      xaxis: { automargin: true, ...layout.xaxis }, yaxis: { automargin: true, ...layout.yaxis },
    }, { responsive: true, displayModeBar: false });
    await Plotly.relayout(plot, themed(plot));
  }
  const near = new IntersectionObserver(found => found.forEach(each => { if (each.isIntersecting) draw(each.target); }), { rootMargin: "300px" });
  all("figure").forEach(figure => near.observe(figure));
  all("[data-charts]").forEach(choice => choice.addEventListener("change", () => {
    all("figure", choice.closest(".charts")).forEach((figure, place) => { figure.hidden = place !== choice.selectedIndex; });
  }));
  const repaint = () => all("figure[data-drawn] .js-plotly-plot").forEach(plot => window.Plotly.relayout(plot, themed(plot)));

  // Dialogues and users: read from the page's compressed parts, a screenful at a time. All text is set as text.
  const known = new Map();
  const opened = id => { if (!known.has(id)) known.set(id, inflate(id).then(JSON.parse)); return known.get(id); };
  const by = id => document.getElementById(id);
  function made(name, text, kind) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  }
  function linked(text, hash) { const link = made("a", text); link.href = `#${hash}`; return link; }
  const named = (titles, item) => item ? titles[item] || `item ${item}` : "not told";
  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => { const option = made("option", text); option.value = value; return option; }));
    if (chosen !== undefined && options.some(([value]) => value === chosen)) select.value = chosen;
  }
  // A list that grows by a button; the row that a link asks for comes first.
  function listing(name, make, wait = 20) {
    const list = by(`${name}-list`), more = by(`${name}-more`), count = by(`${name}-count`);
    let rows = [], shown = 0;
    function grow() {
      list.append(...rows.slice(shown, shown + wait).map(make));
      shown = Math.min(rows.length, shown + wait);
      more.hidden = shown === rows.length;
    }
    more.addEventListener("click", grow);
    return (found, said) => { rows = found; shown = 0; list.replaceChildren(); count.textContent = said; grow(); };
  }
  const every = words => { const wanted = fold(words).split(/\s+/).filter(Boolean); return text => wanted.every(word => text.includes(word)); };

  let talk = null, asked = "";
  // The table whose users a run's dialogues are of, where the page holds them.
  function tableOf(key) {
    const table = [...by("dialogue-run").options].find(option => option.value === key).dataset.table;
    return by(`users-${table}`) ? table : "";
  }
  function dialogue(row) {
    const [user, target, turns, ended, leaked, fitting, history, messages, shown] = row;
    const part = made("article", undefined, "dialogue"), head = made("header");
    part.id = `dialogue-${talk.key}-${user}`;
    head.append(linked(`user ${user}`, `dialogues/${talk.key}/${user}`), made("span", turns > 0 ? `success in turn ${turns}` : ended, `tag ${turns > 0 ? "good" : ""}`));
    if (leaked) head.append(made("span", "a leak was taken out", "tag bad"));
    const wish = made("span", "wanted: "), title = made("mark", named(talk.titles, target));
    wish.append(title);
    head.append(wish, made("small", fitting ? `${fitting} items fit what was said` : ""));
    if (tableOf(talk.key)) head.append(linked("In every method", `users/${tableOf(talk.key)}/${talk.key}/${user}`));
    const lines = made("ol");
    messages.forEach(([role, text]) => { const line = made("li", text, role === "user" ? "user" : "system"); line.dir = "auto"; lines.append(line); });
    const details = made("details"), summary = made("summary", `${history.length} items of the history, ${shown.length} shown`), items = made("ul");
    history.forEach(item => items.append(made("li", `history: ${named(talk.titles, item)}`)));
    shown.forEach(item => items.append(made("li", `shown: ${named(talk.titles, item)}${item === target ? " (the target)" : ""}`)));
    details.append(summary, items);
    part.append(head, lines, details);
    return part;
  }
  const showDialogues = listing("dialogue", dialogue);
  function chooseDialogues() {
    const fits = every(by("dialogue-search").value), outcome = by("dialogue-outcome").value;
    const kept = talk.rows.filter(row => (outcome === "" || (outcome === "leaked" ? row[4] : (row[2] > 0 ? "success" : row[3]) === outcome)) && fits(talk.text(row)));
    const first = kept.findIndex(row => String(row[0]) === asked);
    if (first > 0) kept.unshift(...kept.splice(first, 1));
    const some = talk.total > talk.rows.length ? `; the page holds ${talk.rows.length} of ${talk.total}: those with a leak, then the first` : "";
    showDialogues(kept, `${kept.length} of ${talk.rows.length} dialogues${some}${talk.bad ? `; ${talk.bad} damaged lines left out` : ""}`);
  }
  async function openDialogues(key, user) {
    const select = by("dialogue-run");
    if (!select.options.length) return;
    if (key && [...select.options].some(option => option.value === key)) select.value = key;
    asked = user || "";
    const found = await opened(`dialogues-${select.value}`);
    if (!talk || talk.key !== select.value) {
      const texts = new Map();
      const text = row => { if (!texts.has(row)) texts.set(row, fold([`user ${row[0]}`, named(found.titles, row[1]), ...row[7].map(each => each[1]), ...row[8].map(item => named(found.titles, item))].join(" "))); return texts.get(row); };
      talk = { ...found, key: select.value, rows: found.dialogues, text };
      const counts = new Map();
      talk.rows.forEach(row => { const end = row[2] > 0 ? "success" : row[3]; counts.set(end, (counts.get(end) || 0) + 1); });
      const leaks = talk.rows.filter(row => row[4]).length;
      fill(by("dialogue-outcome"), [["", `all (${talk.rows.length})`], ...[...counts].sort().map(([end, n]) => [end, `${end} (${n})`]), ["leaked", `with a leak (${leaks})`]]);
    }
    if (asked) { by("dialogue-outcome").value = ""; by("dialogue-search").value = ""; }
    chooseDialogues();
  }
  by("dialogue-run").addEventListener("change", () => { location.hash = `dialogues/${by("dialogue-run").value}`; });
  by("dialogue-outcome").addEventListener("change", chooseDialogues);
  by("dialogue-search").addEventListener("input", chooseDialogues);

  let people = null, wanted = "";
  function person(row) {
    const [user, target, length, history, places] = row, part = made("article", undefined, "person"), head = made("header");
    const [a, b] = ["a", "b"].map(name => by(`users-${name}`).selectedIndex);
    head.append(made("strong", `user ${user}`), made("span", length ? `${length} interactions before` : ""));
    const list = made("dl"), add = (name, text) => { const value = made("dd", text); value.dir = "auto"; list.append(made("dt", name), value); return value; };
    add("target", named(people.titles, target));
    (a === b ? [a] : [a, b]).forEach(at => {
      const method = people.rows[at], place = add(method.name, `place ${places[at].toLocaleString("en")}`);
      if (method.talk && method.talked.includes(user)) place.append(" ", linked("Read the dialogue", `dialogues/${method.talk}/${user}`));
    });
    add("history, oldest first", history.length ? history.map(item => named(people.titles, item)).join(" · ") : "not in the records or the cache");
    part.append(head, list);
    return part;
  }
  const showPeople = listing("users", person);
  function choosePeople() {
    const fits = every(by("users-search").value), order = by("users-order").value;
    const [a, b] = ["a", "b"].map(name => by(`users-${name}`).selectedIndex);
    // Far down the list a place more or less is nothing: distances are between logarithms, as in the metrics.
    const apart = row => Math.log2(1 + row[4][b]) - Math.log2(1 + row[4][a]);
    const sign = { a: row => -apart(row), b: apart, apart: row => -Math.abs(apart(row)), user: row => row[0] }[order];
    const at = people.users.findIndex(row => String(row[0]) === wanted);
    const kept = people.users.filter(row => fits(fold([`user ${row[0]}`, named(people.titles, row[1]), ...row[3].map(item => named(people.titles, item))].join(" "))));
    kept.sort((one, two) => (one === people.users[at] ? -1 : two === people.users[at] ? 1 : 0) || sign(one) - sign(two) || one[0] - two[0]);
    const some = people.total > people.users.length ? `; the page holds ${people.users.length} of ${people.total.toLocaleString("en")}, evenly over the ids` : "";
    showPeople(kept, `${kept.length} of ${people.users.length} users${some}`);
  }
  async function openPeople(key, run, user) {
    wanted = user || "";
    const select = by("users-table");
    if (!select.options.length) return;
    if (key && [...select.options].some(option => option.value === key)) select.value = key;
    const found = await opened(`users-${select.value}`);
    if (people !== found) {
      people = found;
      const options = people.rows.map((row, place) => [String(place), row.name]);
      fill(by("users-a"), options);
      fill(by("users-b"), options);
      const [one, other] = [...people.pair, 0, 1];
      by("users-a").selectedIndex = one;
      by("users-b").selectedIndex = Math.min(other === one ? 1 : other, options.length - 1);
      by("users-about").textContent = people.about;
    }
    if (wanted) by("users-search").value = "";
    const at = people.rows.findIndex(row => run && (row.run === run || row.talk === run));
    if (at >= 0) { by("users-a").selectedIndex = at; if (by("users-b").selectedIndex === at) by("users-b").selectedIndex = at ? 0 : Math.min(1, people.rows.length - 1); }
    choosePeople();
  }
  by("users-table").addEventListener("change", () => { location.hash = `users/${by("users-table").value}`; });
  ["a", "b", "order"].forEach(name => by(`users-${name}`).addEventListener("change", choosePeople));
  by("users-search").addEventListener("input", choosePeople);

  all("[data-copy]").forEach(copy => copy.addEventListener("click", async () => {
    const text = copy.parentElement.querySelector("pre");
    try { await navigator.clipboard.writeText(text.textContent); copy.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(text); copy.textContent = "Selected"; }
  }));

  // One view at a time; the address names it, so that every view can be linked to and the browser goes back.
  function show() {
    const [name, first, second, third] = location.hash.slice(1).split("/");
    const target = name && document.getElementById(name);
    const view = (target && target.closest(".view")) || document.getElementById("overview");
    all(".view").forEach(each => each.classList.toggle("open", each === view));
    all("nav a").forEach(link => {
      if (link.hash.slice(1) === view.id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    all("nav ol").forEach(list => list.remove());
    const current = document.querySelector("nav a[aria-current]"), heads = all("h3", view);
    if (current && heads.length > 3) {
      const list = made("ol");
      heads.forEach(head => {
        const item = made("li"), button = made("button", head.textContent);
        button.type = "button";
        button.addEventListener("click", () => head.scrollIntoView({ behavior: "smooth" }));
        item.append(button);
        list.append(item);
      });
      current.after(list);
    }
    if (!body.classList.contains("all")) scrollTo(0, 0);
    if (target && target !== view) target.scrollIntoView();
    if (view.id === "dialogues") openDialogues(first, second);
    if (view.id === "users") openPeople(first, second, third);
  }
  body.classList.add("js");
  addEventListener("hashchange", show);

  const everything = document.getElementById("everything");
  everything.addEventListener("click", () => {
    everything.setAttribute("aria-pressed", String(body.classList.toggle("all")));
    show();
  });

  // Light, dark, or as the system.
  const themes = { auto: "as the system", light: "light", dark: "dark" };
  const button = document.getElementById("theme");
  const remembered = { get() { try { return localStorage.getItem("theme"); } catch { return null; } }, set(value) { try { localStorage.setItem("theme", value); } catch { /* private window */ } } };
  function paint(theme) {
    root.dataset.theme = theme in themes ? theme : "auto";
    button.textContent = `Theme: ${themes[root.dataset.theme]}`;
    repaint();
  }
  button.addEventListener("click", () => {
    const names = Object.keys(themes);
    paint(names[(names.indexOf(root.dataset.theme) + 1) % names.length]);
    remembered.set(root.dataset.theme);
  });
  paint(remembered.get() || "auto");
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

  // A served page asks whether there are newer results; a file never asks anybody.
  if (root.dataset.live) {
    by("reload").addEventListener("click", () => location.reload());
    setInterval(async () => {
      try { by("reload").hidden = await (await fetch("/state", { cache: "no-store" })).text() === root.dataset.live; }
      catch { /* the server has ended */ }
    }, 3000);
  }

  if (matchMedia("(max-width: 999px)").matches) document.getElementById("contents").open = false;
  show();
})();
