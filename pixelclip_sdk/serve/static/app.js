// Puts the page together: words, source, connection, picture.

import { Connection } from "./connection.js";
import { Feeder } from "./feeder.js";
import { readLink, writeLink } from "./link.js";
import { drawHistogram, Meter } from "./meter.js";
import { decodeGrey } from "./png.js";
import { Camera, openFile, Photo } from "./sources.js";
import { Stage } from "./stage.js";
import { Transport } from "./transport.js";
import { parseWords, percent, Words } from "./words.js";

const START = "person, chair, table, screen, plant, cup, wall, floor, window";
const EXAMPLE = "cup: mug; wood: plank, wooden table, wooden spoon";
const SAY_MS = 5000; // Between two announcements of a live picture.

const $ = (id) => document.getElementById(id);
const state = { source: null, model: null, opened: 0, saidMs: -SAY_MS, result: null, bitmap: null, since: Infinity };

const words = new Words($("words"), {
  changed: () => {
    state.chosen = true;
    sendSettings();
    remember();
  },
  shown: () => {
    stage.restyle();
    remember();
  },
  refused: (text) => wordError(text),
});
const stage = new Stage($("canvas"), $("probe"), (text) => ($("said").textContent = text));
const meter = new Meter($("fps"), $("trip"), $("server"), $("dropped"));
const connection = new Connection({ state: connectionState, hello, settings, result, error: failed });
const feeder = new Feeder(connection);
const transport = new Transport($("transport"), () => feeder.send());

// Connection ----------------------------------------------------------------------------------------------

function connectionState(name, text) {
  $("status").dataset.state = name;
  $("status").lastElementChild.textContent = text;
  if (name === "open") notify(null);
  else feeder.disconnected();
  if (name === "token") notify("This server needs a token. Whoever started it has it.", { token: true });
}

function hello({ models = [], sources = [], words: first = {} }) {
  if (state.fresh && Object.keys(first).length) {
    const synonyms = Object.entries(first).map(([name, texts]) => [name, texts.filter((text) => text !== name)]);
    words.set(synonyms.map(([name, others]) => ({ name, synonyms: others })));
  }
  state.fresh = false;
  const names = models.map((model) => model.name ?? model);
  $("model-choice").hidden = names.length < 2;
  $("model").replaceChildren(...names.map((name) => new Option(name, name, false, name === state.model)));
  if (!names.includes(state.model)) state.model = null;
  $("status").lastElementChild.textContent = `Connected${names.length === 1 ? ` to ${names[0]}` : ""}`;
  for (const old of $("sources").querySelectorAll("[data-server]")) old.remove();
  for (const source of sources) {
    const name = source.name ?? source;
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: name, title: "A camera or video of the server" });
    button.dataset.server = name;
    button.onclick = () => (state.source === name ? stop() : useServerSource(name));
    $("sources").append(button);
  }
  showSource();
  sendSettings();
}

/** Everything, each time: a message that is refused changes nothing at the server. */
function sendSettings() {
  if (!connection.ready) return;
  wordError(null);
  const limit = Number($("limit").value);
  connection.sendSettings({
    ...(state.model ? { model: state.model } : {}),
    min_confidence: limit ? limit / 100 : null,
    smooth: feeder.source && !feeder.source.live ? null : "auto",
    source: state.source,
    confidence: true,
  }, words.json);
}

let settingsTimer = null;
function sendSettingsSoon() {
  settingsTimer ??= setTimeout(() => {
    settingsTimer = null;
    sendSettings();
  }, 60);
}

function settings({ id, colours, warnings = [] }) {
  words.paint(colours);
  if (id === connection.settingsId) words.keep();
  if (id === connection.settingsId && warnings.length) wordError(warnings.join(" "), true);
  feeder.allowed = true;
  feeder.send();
}

function failed({ id, frame, code, message }) {
  if (frame !== null && frame !== undefined) {
    if (code === "overloaded") meter.busy();
    if (!feeder.answered(frame) || feeder.source?.live) return;
    if (code === "overloaded") setTimeout(() => feeder.send(), 500);
    else notify(message);
  } else if (id !== null && id !== undefined) {
    if (id === connection.settingsId) refused(message);
  } else {
    notify(message[0].toUpperCase() + message.slice(1));
    state.sourceFailed = code === "source";
  }
}

/** The words before stay; what was refused goes back to where it can be typed again. */
function refused(message) {
  const text = words.restore();
  if (text !== null) {
    $("word").value = text;
    sendSettings();
    remember();
  }
  wordError(message);
}

// Results -------------------------------------------------------------------------------------------------

let newest = null; // A result that came while another one was being decoded.
let decoding = false;

async function result(header, parts) {
  const frame = parts.image ? { server: true } : feeder.answered(header.frame);
  if (!frame || (frame.server && !(header.settings >= state.since))) return;
  newest = { header, parts, frame, opened: state.opened };
  if (decoding) return;
  decoding = true;
  try {
    while (newest) {
      const next = newest;
      newest = null;
      await show(next);
    }
  } catch (error) {
    notify(`A result of the server cannot be read: ${error.message}.`);
  } finally {
    decoding = false;
  }
}

async function show({ header, parts, frame, opened }) {
  const [labels, confidence, bitmap] = await Promise.all([
    decodeGrey(parts.labels),
    parts.confidence && decodeGrey(parts.confidence),
    parts.image && createImageBitmap(new Blob([parts.image], { type: "image/jpeg" })),
  ]);
  if (frame.server) connection.sendShown(header.frame);
  if (opened !== state.opened) return; // Of a source that was closed.
  const picture = bitmap ?? frame.canvas;
  stage.showResult(picture, picture.width, picture.height, { header, labels, confidence, words });
  state.bitmap?.close(); // The last picture of the server.
  state.bitmap = bitmap;
  state.result = { header, labels: parts.labels };
  $("waiting").hidden = true;
  if (state.sourceFailed) notify(null); // It is back.
  words.share(header.shares);
  $("unknown-row").hidden = !header.unknown_share;
  $("unknown-row").lastElementChild.textContent = percent(header.unknown_share);
  drawHistogram($("histogram"), header.histogram, Number($("limit").value) / 100);
  meter.result(header, frame, feeder);
  $("save").disabled = $("save-labels").disabled = false;
  say(header);
}

function say({ shares, unknown_share: unknown }) {
  const now = performance.now();
  if (isLive() && now - state.saidMs < SAY_MS) return;
  state.saidMs = now;
  const found = Object.entries(shares).filter(([, share]) => share >= 0.005).sort((a, b) => b[1] - a[1]);
  if (unknown >= 0.005) found.push(["unknown", unknown]);
  const text = found.slice(0, 6).map(([name, share]) => `${name} ${Math.round(share * 100)} percent`).join(", ");
  if ($("said").textContent !== text) $("said").textContent = text;
}

const isLive = () => state.source !== null || Boolean(feeder.source?.live);

// Sources -------------------------------------------------------------------------------------------------

/** Opens a source with a function that returns it. The newest call wins. */
async function open(kind, opener) {
  const mine = ++state.opened;
  notify(null);
  let source;
  try {
    source = await opener(() => {
      if (mine !== state.opened) return;
      if (!connection.ready || !feeder.allowed) stage.showFrame(source.element, source.width, source.height);
      feeder.send();
    });
  } catch (error) {
    if (mine === state.opened) notify(error.message);
    return;
  }
  if (mine !== state.opened) {
    source.close();
    return;
  }
  Object.assign(state, { source: null, kind, saidMs: -SAY_MS, since: Infinity });
  meter.reset();
  transport.use(source);
  stage.showFrame(source.element, source.width, source.height);
  words.share(null);
  feeder.use(source);
  showSource();
  sendSettings();
  if (kind === "camera") {
    source.ended = () => {
      stop();
      notify("The camera is gone. Connect it again, then press Camera.");
    };
    showCameras(source);
  }
}

function useServerSource(name) {
  state.opened++;
  Object.assign(state, { source: name, kind: "server", saidMs: -SAY_MS });
  notify(null);
  meter.reset();
  transport.use(null);
  feeder.use(null);
  stage.clear();
  words.share(null);
  showSource();
  sendSettings();
  state.since = connection.settingsId; // Results of earlier settings are of another source.
}

function stop() {
  state.opened++;
  Object.assign(state, { source: null, kind: null, result: null, since: Infinity });
  transport.use(null);
  feeder.use(null);
  meter.reset();
  stage.clear();
  words.share(null);
  $("unknown-row").hidden = true;
  $("save").disabled = $("save-labels").disabled = true;
  showSource();
  sendSettings();
}

function showSource() {
  const on = Boolean(feeder.source) || state.source !== null;
  $("stage").classList.toggle("empty", !on);
  $("welcome").hidden = on;
  $("stats").hidden = !on;
  $("waiting").hidden = state.source === null || stage.frame !== null;
  $("camera").hidden = state.kind !== "camera" || $("camera").options.length < 2;
  for (const button of $("sources").querySelectorAll("button")) {
    const active = button.dataset.server ? button.dataset.server === state.source
      : on && state.source === null && button.dataset.start === state.kind;
    button.setAttribute("aria-pressed", active);
  }
}

async function showCameras(camera) {
  const devices = await Camera.devices();
  const options = devices.map((device, i) => new Option(device.label || `Camera ${i + 1}`, device.deviceId));
  $("camera").replaceChildren(...options);
  $("camera").value = camera.deviceId;
  showSource();
}

const starts = {
  camera: () => (state.kind === "camera" ? stop() : open("camera", (fresh) => Camera.open(fresh))),
  file: () => $("file").click(),
  example: () => {
    if (!state.chosen) words.set(parseWords(EXAMPLE)); // Those of the server fit its own pictures.
    open("example", async () => {
      const answer = await fetch(new URL("static/example.jpg", document.baseURI)).catch(() => null);
      if (!answer?.ok) throw new Error("The example cannot be loaded; is the server still there?");
      return Photo.open(await answer.blob());
    });
  },
};
for (const button of document.querySelectorAll("[data-start]")) button.onclick = starts[button.dataset.start];
$("camera").onchange = () => open("camera", (fresh) => Camera.open(fresh, $("camera").value));
const openChosen = (file) => open("file", (fresh) => openFile(file, fresh));
$("file").onchange = () => {
  if ($("file").files[0]) openChosen($("file").files[0]);
  $("file").value = "";
};
addEventListener("paste", ({ clipboardData }) => clipboardData?.files[0] && openChosen(clipboardData.files[0]));
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", (event) => event.relatedTarget || ($("drop").hidden = true));
addEventListener("drop", (event) => {
  $("drop").hidden = true;
  if (!event.dataTransfer.files[0]) return;
  event.preventDefault();
  openChosen(event.dataTransfer.files[0]);
});

// Words and settings --------------------------------------------------------------------------------------

$("word-form").onsubmit = (event) => {
  event.preventDefault();
  addWords($("word").value);
};
$("word").onpaste = (event) => {
  const text = event.clipboardData.getData("text");
  if (!text.includes("\n")) return; // An input drops the ends of lines.
  event.preventDefault();
  addWords(text);
};
function addWords(text) {
  wordError(null);
  if (words.add(parseWords(text))) $("word").value = "";
}
function wordError(text, warning = false) {
  $("word-error").hidden = !text;
  $("word-error").textContent = text ?? "";
  $("word-error").classList.toggle("warning", warning);
}

function showLimit() {
  const value = Number($("limit").value);
  $("limit-value").textContent = value ? `${value} %` : "off";
  $("limit").setAttribute("aria-valuetext", value ? `${value} percent` : "off");
  if (state.result) drawHistogram($("histogram"), state.result.header.histogram, value / 100);
}
$("limit").oninput = () => {
  showLimit();
  sendSettingsSoon();
  remember();
};
function showOpacity() {
  stage.opacity = Number($("opacity").value) / 100;
  $("opacity-value").textContent = `${$("opacity").value} %`;
  stage.restyle();
}
$("opacity").oninput = () => {
  showOpacity();
  remember();
};
$("model").onchange = () => {
  state.model = $("model").value;
  sendSettings();
  remember();
};

let rememberTimer = null;
function remember() {
  clearTimeout(rememberTimer);
  rememberTimer = setTimeout(writeNow, 200);
}
function writeNow() {
  clearTimeout(rememberTimer);
  rememberTimer = null;
  const numbers = { limit: Number($("limit").value), opacity: Number($("opacity").value) };
  writeLink({ items: words.items, model: state.model, ...numbers });
}
// Words that nobody changed are not written: with the next visit the server may have others.
addEventListener("pagehide", () => rememberTimer && writeNow());

function applyLink() {
  const link = readLink();
  state.fresh = !link.words; // The server may have words to start with.
  state.chosen = Boolean(link.words); // Words that no person chose give way to those of the example.
  words.set(link.words ?? parseWords(START), link.off);
  $("limit").value = link.limit ?? 0;
  $("opacity").value = link.opacity ?? 55;
  state.model = link.model ?? null;
  showLimit();
  showOpacity();
}
addEventListener("hashchange", () => {
  applyLink();
  sendSettings();
});

// Saving, sharing, messages -------------------------------------------------------------------------------

$("link").onclick = async () => {
  writeNow();
  try {
    await navigator.clipboard.writeText(location.href);
    toast("Link copied");
  } catch {
    toast("The address bar has the link");
  }
};
$("save").onclick = () => $("canvas").toBlob((blob) => download(blob, "pixelclip.png"), "image/png");
$("save-labels").onclick = () => {
  download(new Blob([state.result.labels], { type: "image/png" }), "pixelclip-labels.png");
};
function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

let toastTimer = null;
function toast(text) {
  $("toast").textContent = text;
  $("toast").classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("on"), 2500);
}

/** Shows a message over the picture; null for none. */
function notify(text, { token = false } = {}) {
  state.sourceFailed = false;
  $("notice").hidden = !text;
  $("notice").firstElementChild.textContent = text ?? "";
  $("token-form").hidden = !token;
  $("dismiss").hidden = token;
  if (token) $("token").focus();
}
$("dismiss").onclick = () => notify(null);
$("token-form").onsubmit = (event) => {
  event.preventDefault();
  connection.useToken($("token").value.trim());
  $("token").value = "";
};
$("skip").onclick = (event) => {
  event.preventDefault(); // The fragment of the address is the link.
  $("word").focus();
};

applyLink();
connection.connect();
