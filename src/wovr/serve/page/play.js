// The page of `wovr play`: what the hand does goes to the server, what the server imagines comes back.
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

let about = null; // what the server said of itself: tasks, axes, drivers
let course = { at: 0, branch: 0, most: 511, branches: [], series: {}, drivers: [] };
let state = { driver: "hand", temperature: 0, always: false, again: false };
let newest = 0; // frames are decoded side by side: an older one must not be drawn over a newer
const shown = []; // when the last frames arrived

// ---------------------------------------------------------------------------------------------- the connection

const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";
const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/session`);
socket.binaryType = "arraybuffer";
const send = (what, values = {}) => {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: what, ...values }));
};
socket.onopen = () => send("hello", token ? { token } : {});
socket.onclose = () => note("The connection is closed. Load the page again for a new game.", true, true);
socket.onmessage = ({ data }) => {
  if (data instanceof ArrayBuffer) return showFrame(data);
  const message = JSON.parse(data);
  const hear = {
    welcome: welcome,
    begun: begun,
    course: (said) => { course = said; drawCourse(); },
    state: (said) => { state = said; drawState(); },
    saved: saved,
    error: (said) => note(said.text, true),
    refused: (said) => { note(said.text, true, true); $("instruction").textContent = said.text; socket.onclose = null; },
  }[message.say];
  if (hear) hear(message);
};

function note(text, isError = false, stays = false) {
  const line = make("p", text, isError ? { class: "error" } : {});
  $("notes").append(line);
  while ($("notes").children.length > 3) $("notes").firstChild.remove();
  if (!stays) setTimeout(() => line.remove(), 6000);
}

// -------------------------------------------------------------------------------------------------- pictures

async function showFrame(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const number = ++newest;
  let from = 4 + length;
  const pictures = [];
  for (const size of head.pictures) {
    pictures.push(createImageBitmap(new Blob([new Uint8Array(buffer, from, size)], { type: "image/png" })));
    from += size;
  }
  const [imagined, real] = await Promise.all(pictures);
  if (number !== newest) return;
  draw($("imagined"), imagined);
  $("no-real").hidden = Boolean(real);
  if (real) {
    draw($("real"), real);
    drawApart();
  } else for (const id of ["real", "apart"]) penOf($(id)).clearRect(0, 0, $(id).width, $(id).height);
  keepNumbers(head);
  drawNumbers(head);
  drawCourse();
  shown.push(performance.now());
  while (shown.length > 12) shown.shift();
  const pace = shown.length > 1 ? (1000 * (shown.length - 1)) / (shown.at(-1) - shown[0]) : 0;
  const moving = performance.now() - (shown.at(-2) ?? 0) < 1000;
  $("pace").textContent = `${moving ? pace.toFixed(1) + " frames/s · " : ""}chunk in ${head.milliseconds} ms`;
  document.body.dataset.at = head.at;
  document.body.dataset.control = head.control;
}

function draw(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  penOf(canvas).drawImage(bitmap, 0, 0);
}

const penOf = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

function drawApart() {
  const [one, other] = ["imagined", "real"].map((id) => {
    const canvas = $(id);
    return penOf(canvas).getImageData(0, 0, canvas.width, canvas.height);
  });
  const canvas = $("apart");
  canvas.width = one.width;
  canvas.height = one.height;
  const picture = new ImageData(one.width, one.height);
  for (let i = 0; i < picture.data.length; i += 4) {
    for (let c = 0; c < 3; c++) picture.data[i + c] = Math.min(255, 2 * Math.abs(one.data[i + c] - other.data[i + c]));
    picture.data[i + 3] = 255;
  }
  penOf(canvas).putImageData(picture, 0, 0);
}

// --------------------------------------------------------------------------------------------------- numbers

const BARS = {
  success_probability: ["Success", "--success"],
  value: ["Value", "--value"],
  trust: ["Trust", "--accent"],
  uncertainty: ["Uncertainty", "--gap"],
  apart: ["Pixels apart", "--gap"],
};

function keepNumbers(head) {
  course.at = head.at;
  course.branch = head.branch;
  for (const [name, value] of Object.entries(head.values)) (course.series[name] ??= [])[head.at] = value;
  course.drivers[head.at] = head.driver;
  const here = course.branches.find((branch) => branch.number === head.branch);
  if (here) here.length = head.length;
  if (head.length < course.drivers.length - 1) {
    course.drivers.length = head.length + 1;
    for (const series of Object.values(course.series)) series.length = Math.min(series.length, head.length + 1);
  }
}

function drawNumbers(head) {
  const list = $("bars");
  const names = Object.keys(BARS).filter((name) => name in head.values || list.querySelector(`[data-bar=${name}]`));
  for (const name of names) {
    let row = list.querySelector(`[data-bar=${name}]`);
    if (!row) {
      const [label, colour] = BARS[name];
      row = make("div", "", { "data-bar": name });
      row.style.order = Object.keys(BARS).indexOf(name);
      const meter = make("span", "", { class: "meter" });
      const fill = make("i");
      fill.style.background = `var(${colour})`;
      meter.append(fill);
      if (name === "success_probability") {
        const mark = make("b", "", { title: "threshold" });
        mark.style.left = `${100 * Math.min(1, about.threshold)}%`;
        meter.append(mark);
      }
      row.append(make("dt", label), make("dd"), meter);
      list.append(row);
    }
    const value = head.values[name];
    row.querySelector("dd").textContent = value === undefined ? "–" : name === "apart" ? `${(100 * value).toFixed(1)} %` : value.toFixed(2);
    row.querySelector("i").style.width = `${100 * Math.min(1, Math.max(0, value ?? 0))}%`;
  }
  const happened = (name) => (course.series[name] ?? []).slice(0, head.at + 1).some((value) => value > 0);
  $("imagined-success").hidden = !happened("success");
  $("real-success").hidden = !happened("real_success");
  $("over").hidden = !head.over;
  const apart = head.values.apart;
  $("apart-number").textContent = apart === undefined ? "–" : `${(100 * apart).toFixed(1)} % of pixels`;
  $("driven").textContent = head.driver ? `driven by ${head.driver === "hand" ? "hand" : head.driver}` : "drag in the picture, or use the keys";
  if (head.action) head.action.forEach((value, index) => drawAxis(index, value));
  if (!head.control) {
    // Not the hand's: whoever takes over from here goes on holding what is held.
    for (const axis of switches) held[axis] = (head.action ?? about.controls.rest)[axis];
    drawPad();
  }
}

function drawAxis(index, value) {
  const fill = document.querySelector(`[data-axis="${index}"] i`);
  if (!fill) return;
  fill.style.left = `${50 + 50 * Math.min(0, value)}%`;
  fill.style.width = `${50 * Math.abs(value)}%`;
}

// -------------------------------------------------------------------------------------------------- timeline

const PARTED = 0.05; // share of pixels apart from which on real and imagined have parted

function drawCourse() {
  const canvas = $("line");
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, 96];
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  pen.fillStyle = colour("--paper");
  pen.fillRect(0, 0, width, height);
  const length = played();
  const step = stepOf(width);
  const drivers = ["--accent", "--value", "--gap", "--success"];
  const who = ["hand", ...(about?.drivers ?? [])];
  for (let at = 1; at <= length; at++) {
    pen.fillStyle = colour(drivers[Math.max(0, who.indexOf(course.drivers[at])) % drivers.length]);
    pen.fillRect(4 + (at - 1) * step, height - 7, Math.max(1, step), 4);
  }
  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  const chunk = about?.chunk ?? 8;
  for (let at = 0; 4 + at * step <= width; at += chunk) {
    pen.beginPath();
    pen.moveTo(4.5 + at * step, 4);
    pen.lineTo(4.5 + at * step, height - 10);
    pen.stroke();
  }
  for (const [name, hue, scale] of [["apart", "--gap", 4], ["value", "--value", 1], ["success_probability", "--success", 1]]) {
    pen.strokeStyle = colour(hue);
    pen.lineWidth = 2;
    pen.beginPath();
    let begun = false;
    (course.series[name] ?? []).forEach((value, at) => {
      if (value === null || value === undefined) return;
      const [x, y] = [4 + at * step, height - 12 - Math.min(1, value * scale) * (height - 20)];
      begun ? pen.lineTo(x, y) : pen.moveTo(x, y);
      begun = true;
    });
    pen.stroke();
  }
  pen.fillStyle = colour("--ink");
  pen.fillRect(4 + course.at * step - 1, 2, 2, height - 4);
  pen.beginPath();
  pen.arc(4 + course.at * step, 6, 4.5, 0, 7);
  pen.fill();
  const apart = (course.series.apart ?? []).findIndex((value) => value > PARTED);
  $("parts").textContent = course.series.apart?.length ? (apart < 0 ? "not parted" : `parted at frame ${apart}`) : "";
  $("at").textContent = `frame ${course.at} of ${length}`;
  canvas.setAttribute("aria-valuenow", course.at);
  canvas.setAttribute("aria-valuemax", length);
  $("value-legend").hidden = !course.series.value;
  $("apart-legend").hidden = !course.series.apart;
  drawBranches();
}

const played = () => course.branches.find((branch) => branch.number === course.branch)?.length ?? 0;
const stepOf = (width) => Math.min(14, (width - 8) / Math.max(48, played()));

function drawBranches() {
  const said = JSON.stringify([course.branches, course.branch]);
  if ($("branches").dataset.said === said) return;
  $("branches").dataset.said = said;
  $("branches").replaceChildren(
    ...course.branches.map((branch) => {
      const from = branch.parent < 0 ? "" : ` from frame ${branch.left_at} of ${branch.parent}`;
      const chip = make("button", `branch ${branch.number}${from}: ${branch.length} frames`, { "aria-pressed": branch.number === course.branch });
      chip.onclick = () => send("rewind", { at: branch.length, branch: branch.number });
      return chip;
    }),
  );
  $("branches").hidden = course.branches.length < 2;
}

const line = $("line");
const seek = (event) => {
  const x = event.clientX - line.getBoundingClientRect().left - 4;
  const at = Math.max(0, Math.min(played(), Math.round(x / stepOf(line.clientWidth))));
  if (at !== course.at) { course.at = at; drawCourse(); send("rewind", { at }); }
};
line.onpointerdown = (event) => { line.setPointerCapture(event.pointerId); seek(event); };
line.onpointermove = (event) => { if (event.buttons) seek(event); };
const go = (by) => send("rewind", { at: Math.max(0, Math.min(played(), course.at + by)) });
$("first").onclick = () => send("rewind", { at: 0 });
$("back").onclick = () => go(-1);
$("on").onclick = () => go(1);
$("again").onclick = () => send("again", { on: !state.again });
$("redraw").onclick = () => send("redraw");
addEventListener("resize", drawCourse);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCourse);

// ---------------------------------------------------------------------------------------------------- driving

const PAIRS = [["KeyA", "KeyD"], ["KeyS", "KeyW"], ["KeyQ", "KeyE"], ["KeyF", "KeyR"], ["KeyG", "KeyT"], ["KeyH", "KeyY"], ["KeyJ", "KeyU"], ["KeyK", "KeyI"], ["KeyL", "KeyO"]];
const ARROWS = [["ArrowLeft", "ArrowRight"], ["ArrowDown", "ArrowUp"]];
const SWITCHES = ["Space", "Digit1", "Digit2", "Digit3", "Digit4"];
const NAMES = { ArrowLeft: "←", ArrowRight: "→", ArrowDown: "↓", ArrowUp: "↑", Space: "space" };
const keyName = (code) => NAMES[code] ?? code.replace(/^(Key|Digit)/, "");

const keys = new Set(); // codes that are down
const pads = new Set(); // buttons of the pad that are down, as "axis:sign"
let moves = []; // axes that rest when released, in order: index in the action
let switches = []; // axes that hold
let held = []; // value of every axis that holds
let stick = null; // the pointer's drag in the picture, [x, y] in [-1, 1]
let pulse = 0; // until when a switch that was thrown keeps time going
let slow = false;
let number = 0;
let said = "";

const flipped = (index) => localStorage.getItem(`flip ${about.controls.axes[index].name}`) === "yes";

function wanted() {
  const action = about.controls.rest.slice();
  let active = performance.now() < pulse;
  const pad = (navigator.getGamepads?.() ?? []).find((one) => one?.connected);
  const sticks = pad ? [pad.axes[0], -pad.axes[1], -(pad.axes[3] ?? 0), pad.axes[2] ?? 0].map((x) => (Math.abs(x) < 0.15 ? 0 : x)) : [];
  moves.forEach((axis, place) => {
    let value = sticks[place] ?? 0;
    if (stick && place < 2) value += stick[place];
    for (const pair of [PAIRS[place], ARROWS[place]]) {
      if (pair && keys.has(pair[0])) value -= 1;
      if (pair && keys.has(pair[1])) value += 1;
    }
    if (pads.has(`${axis}:-`)) value -= 1;
    if (pads.has(`${axis}:+`)) value += 1;
    if (!value) return;
    active = true;
    value *= (slow ? 0.35 : 1) * (flipped(axis) ? -1 : 1);
    action[axis] = Math.round(100 * Math.max(-1, Math.min(1, value))) / 100;
  });
  for (const axis of switches) action[axis] = held[axis];
  const button = Boolean(pad?.buttons[0]?.pressed);
  if (button && !wanted.button && switches.length) flip(switches.at(-1));
  wanted.button = button;
  return { action, active };
}

function tick() {
  if (about) {
    const now = wanted();
    const text = JSON.stringify(now);
    if (text !== said) {
      if (now.active && state.driver !== "hand") send("drive", { driver: "hand" }); // taking over
      if (now.active && state.driver !== "hand") state.driver = "hand";
      said = text;
      send("control", { ...now, number: ++number });
      now.action.forEach((value, index) => drawAxis(index, value));
    }
  }
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);

function flip(axis) {
  held[axis] = held[axis] > 0 ? -1 : 1;
  pulse = performance.now() + 800;
  drawPad();
}

function release() {
  keys.clear();
  pads.clear();
  stick = null;
  slow = false;
  $("stick").hidden = true;
  drawPad();
}

const typing = (target) => target.matches?.("input[type=number], select");
addEventListener("keydown", (event) => {
  slow = event.shiftKey;
  if (!about || typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = SWITCHES.indexOf(event.code);
  // Space is for the axis that holds, and the last of them where there are several.
  const axis = place === 0 ? switches.at(-1) : switches.slice(0, -1)[place - 1];
  if (axis !== undefined && place >= 0) {
    if (!event.repeat) flip(axis);
  } else if ([...PAIRS.slice(0, moves.length), ...ARROWS.slice(0, moves.length)].flat().includes(event.code)) keys.add(event.code);
  else if (event.code === "KeyP" ) $("again").click();
  else if (event.code === "KeyN") $("redraw").click();
  else if (event.code === "Comma") go(-1);
  else if (event.code === "Period") go(1);
  else if (event.code === "Home") send("rewind", { at: 0 });
  else return;
  if (event.target instanceof HTMLButtonElement) event.target.blur();
  event.preventDefault();
  drawPad();
});
addEventListener("keyup", (event) => { slow = event.shiftKey; keys.delete(event.code); drawPad(); });
addEventListener("blur", release);
document.addEventListener("visibilitychange", () => { if (document.hidden) release(); });

const picture = $("imagined");
const drag = (event) => {
  const box = picture.getBoundingClientRect();
  const reach = box.width / 4;
  const clip = (x) => Math.max(-1, Math.min(1, x));
  stick = [clip((event.clientX - drag.from[0]) / reach), clip((drag.from[1] - event.clientY) / reach)].map((x) => (Math.abs(x) < 0.12 ? 0 : x));
  $("stick").style.left = `${event.clientX - box.left}px`;
  $("stick").style.top = `${event.clientY - box.top}px`;
};
picture.onpointerdown = (event) => {
  picture.setPointerCapture(event.pointerId);
  drag.from = [event.clientX, event.clientY];
  $("stick").hidden = false;
  drag(event);
};
picture.onpointermove = (event) => { if (event.buttons && drag.from) drag(event); };
picture.onpointerup = picture.onpointercancel = release;

function drawPad() {
  for (const button of $("pad").children) {
    const [axis, sign] = [Number(button.dataset.axisOf), button.dataset.sign];
    if (!sign) {
      const { low, high, name } = about.controls.axes[axis];
      button.textContent = `${name}: ${held[axis] > 0 ? high : low}`;
      button.classList.toggle("held", held[axis] > 0);
    } else {
      const place = moves.indexOf(axis);
      const codes = [PAIRS[place], ARROWS[place]].map((pair) => pair?.[sign === "-" ? 0 : 1]);
      button.classList.toggle("held", pads.has(`${axis}:${sign}`) || codes.some((code) => keys.has(code)));
    }
  }
}

function makeControls() {
  const { axes, rest, source } = about.controls;
  switches = axes.flatMap((axis, index) => (axis.holds ? [index] : []));
  moves = axes.flatMap((axis, index) => (axis.holds ? [] : [index]));
  held = rest.slice();
  $("axes-source").textContent = `(from ${source})`;
  $("axes").tBodies[0].replaceChildren(
    ...axes.map((axis, index) => {
      const row = make("tr", "", { "data-axis": index });
      const where = axis.holds ? switches.indexOf(index) : moves.indexOf(index);
      const codes = axis.holds ? [index === switches.at(-1) ? "Space" : SWITCHES[where + 1]] : PAIRS[where] ?? [];
      const meaning = make("td");
      codes.forEach((code, side) => {
        if (!code) return;
        meaning.append(make("kbd", keyName(code)), ` ${axis.holds ? `${axis.low} / ${axis.high}` : side ? axis.high : axis.low} `);
      });
      const meter = make("td");
      const bar = make("div", "", { class: "meter" });
      bar.append(make("i"));
      meter.append(bar);
      const last = make("td");
      if (!axis.holds) {
        const label = make("label", "");
        const box = make("input", "", { type: "checkbox", "aria-label": `flip ${axis.name}` });
        box.checked = flipped(index);
        box.onchange = () => { localStorage.setItem(`flip ${axis.name}`, box.checked ? "yes" : "no"); };
        label.append(box, " flip");
        last.append(label);
      }
      row.append(make("td", axis.name), meaning, meter, last);
      return row;
    }),
  );
  $("pad").replaceChildren(
    ...moves.slice(0, PAIRS.length).flatMap((axis) =>
      ["-", "+"].map((sign) => {
        const { name, low, high } = axes[axis];
        const word = sign === "-" ? low : high;
        const button = make("button", word.length > 1 ? word : `${name} ${word}`, { "data-axis-of": axis, "data-sign": sign });
        button.onpointerdown = (event) => { button.setPointerCapture(event.pointerId); pads.add(`${axis}:${sign}`); drawPad(); };
        button.onpointerup = button.onpointercancel = () => { pads.delete(`${axis}:${sign}`); drawPad(); };
        button.oncontextmenu = (event) => event.preventDefault();
        return button;
      }),
    ),
    ...switches.map((axis) => {
      const button = make("button", "", { class: "wide", "data-axis-of": axis });
      button.onclick = () => flip(axis);
      return button;
    }),
  );
  drawPad();
}

// ------------------------------------------------------------------------------------- who drives, where it begins

function drawState() {
  for (const button of $("drivers").children) button.setAttribute("aria-pressed", button.dataset.driver === state.driver);
  $("always").checked = state.always;
  $("again").textContent = state.again ? "Stop" : "Play again";
  $("temperature-row").hidden = !(about?.drivers ?? []).some((name) => name !== "expert");
}

function welcome(message) {
  about = message;
  document.title = `wovr play: ${about.tasks[0].suite}`;
  for (const id of ["imagined", "real", "apart"]) [$(id).height, $(id).width] = about.size;
  $("drivers").replaceChildren(
    ...["hand", ...about.drivers].map((name) => {
      const button = make("button", name === "hand" ? "Hand" : name, { "data-driver": name, "aria-pressed": name === "hand" });
      button.onclick = () => send("drive", { driver: name });
      return button;
    }),
  );
  makeControls();
  about.tasks.forEach((task, index) => $("task").append(make("option", `${task.suite} ${task.task}: ${task.instruction}`, { value: index })));
  $("task").onchange = listEpisodes;
  $("episode").onchange = limitFrames;
  listEpisodes();
  about.keyframes.forEach((one, index) => $("keyframe").append(make("option", `${one.suite} ${one.task}: ${one.kind}, ${one.episode} frame ${one.frame}`, { value: index })));
  if (about.keyframes.length) {
    $("keyframe").prepend(make("option", "none", { value: "" }));
    $("keyframe").value = "";
    $("keyframe-row").hidden = false;
  }
}

function listEpisodes() {
  const task = about.tasks[$("task").value || 0];
  $("episode").replaceChildren(...task.episodes.map((one, index) => make("option", `${one.key} ${one.succeeded ? "✓" : "✗"}`, { value: index })));
  limitFrames();
}

function limitFrames() {
  const task = about.tasks[$("task").value || 0];
  $("from").max = task.episodes[$("episode").value || 0].frames - 1;
  $("from").value = 0;
  $("from-said").textContent = 0;
}

$("from").oninput = () => { $("from-said").textContent = $("from").value; };
$("begin").onclick = () => {
  const seed = $("seed").value === "" ? {} : { seed: Math.max(0, Math.floor(Number($("seed").value))) };
  if ($("keyframe").value) return send("begin", { keyframe: Number($("keyframe").value), ...seed });
  const task = about.tasks[$("task").value || 0];
  send("begin", { suite: task.suite, task: task.task, episode: Number($("episode").value || 0), frame: Number($("from").value), ...seed });
};

function begun(message) {
  $("instruction").textContent = message.instruction;
  $("instruction").title = `noise of seed ${message.seed}`;
  const hasReal = !message.note && about.simulator;
  $("no-real").title = message.note;
  $("save-real").disabled = !hasReal;
  if (message.note && begun.note !== message.note) note(message.note);
  begun.note = message.note;
  held = about.controls.rest.slice();
  $("bars").replaceChildren();
  drawPad();
}

$("temperature").oninput = () => {
  $("temperature-said").textContent = $("temperature").value;
  send("drive", { driver: state.driver, temperature: Number($("temperature").value) });
};
$("always").onchange = () => send("drive", { driver: state.driver, always: $("always").checked });
for (const button of document.querySelectorAll("[data-save]")) button.onclick = () => send("save", { what: button.dataset.save });

async function saved(message) {
  const line = make("li", `${message.path} `);
  if (message.name) {
    const load = make("button", "Load");
    load.onclick = async () => {
      const answer = await fetch(`kept/${message.name}`, { headers: { Authorization: `Bearer ${token}` } });
      if (!answer.ok) return note(await answer.text(), true);
      const link = make("a", "", { href: URL.createObjectURL(await answer.blob()), download: message.name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    };
    line.append(load);
  }
  $("kept").prepend(line);
  while ($("kept").children.length > 8) $("kept").lastChild.remove();
}
