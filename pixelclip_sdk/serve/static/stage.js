// The picture: a frame, the classes drawn over it, and the point that a person asked about.

const UNKNOWN = [20, 20, 20];
const DIMMED = 0.2; // Part of the opacity of other classes while one stands out.

export class Stage {
  constructor(canvas, probe, said) {
    Object.assign(this, { canvas, probe, said });
    this.mark = probe.previousElementSibling;
    this.frame = null; // What was segmented: anything that can be drawn.
    this.labels = null; // {width, height, data} of numbers.
    this.point = null; // [x, y], 0–1.
    this.opacity = 0.55;
    this.overlay = document.createElement("canvas");
    canvas.onclick = (event) => {
      const box = canvas.getBoundingClientRect();
      this.ask([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
    };
    canvas.onkeydown = (event) => this.key(event);
  }

  /** Shows a picture without classes. */
  showFrame(frame, width, height) {
    this.labels = this.confidence = null;
    this.setFrame(frame, width, height);
    this.compose();
  }

  /** Shows a picture with its result. */
  showResult(frame, width, height, { header, labels, confidence, words }) {
    Object.assign(this, { header, labels, confidence, words });
    this.setFrame(frame, width, height);
    this.restyle();
  }

  setFrame(frame, width, height) {
    this.frame = frame;
    this.canvas.hidden = false;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
      this.canvas.style.setProperty("--ratio", width / height);
    }
  }

  clear() {
    this.frame = this.labels = this.confidence = null;
    this.canvas.hidden = true;
    this.ask(null);
  }

  /** Draws the classes again, after the opacity or the choice of classes changed. */
  restyle() {
    if (!this.labels) return;
    const { width, height, data } = this.labels;
    if (this.overlay.width !== width || this.overlay.height !== height) Object.assign(this.overlay, { width, height });
    const context = this.overlay.getContext("2d");
    const picture = context.createImageData(width, height);
    const out = new Uint32Array(picture.data.buffer);
    const [fill, edge] = this.tables();
    const unknown = this.header.unknown;
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const label = data[i];
        const border = (x + 1 < width && data[i + 1] !== label) || (y + 1 < height && data[i + width] !== label);
        // Unknown pixels are hatched, so that colour is not all that tells them apart.
        if (border) out[i] = edge[label];
        else if (label === unknown && ((x + y) & 7) < 6) out[i] = 0;
        else out[i] = fill[label];
      }
    }
    context.putImageData(picture, 0, 0);
    this.compose();
  }

  /** The colours of the labels inside and at borders, as the bytes of RGBA. */
  tables() {
    const { names, unknown } = this.header;
    const fill = new Uint32Array(unknown + 1), edge = new Uint32Array(unknown + 1);
    const alpha = this.opacity * 255, line = this.opacity ? Math.min(alpha + 90, 255) : 0;
    const set = (label, [r, g, b], part) => {
      fill[label] = (((alpha * part) << 24) | (b << 16) | (g << 8) | r) >>> 0;
      edge[label] = (((line * part) << 24) | (b << 16) | (g << 8) | r) >>> 0;
    };
    names.forEach((name, label) => {
      const item = this.words.find(name);
      if (!item?.on) return;
      const part = this.words.standsOut && this.words.standsOut !== name ? DIMMED : 1;
      set(label, this.words.colour(item), part);
    });
    set(unknown, UNKNOWN, 1);
    return [fill, edge];
  }

  compose() {
    if (!this.frame) return;
    const context = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    context.drawImage(this.frame, 0, 0, width, height);
    if (this.labels) {
      context.imageSmoothingQuality = "high";
      context.drawImage(this.overlay, 0, 0, width, height);
    }
    this.tell();
  }

  /** Asks about a point; null for none. */
  ask(point) {
    this.point = point && point.map((value) => Math.min(Math.max(value, 0), 0.9999));
    const text = this.tell();
    if (text) this.said(text);
  }

  key(event) {
    const step = event.shiftKey ? 0.1 : 0.02;
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (move) this.ask(this.point ? [this.point[0] + move[0], this.point[1] + move[1]] : [0.5, 0.5]);
    else if (event.key === "Enter") this.ask(this.point ?? [0.5, 0.5]);
    else if (event.key === "Escape") this.ask(null);
    else return;
    event.preventDefault();
  }

  /** Writes the class and the confidence of the point beside it; returns the text. */
  tell() {
    this.probe.hidden = this.mark.hidden = !this.point || !this.labels;
    if (this.probe.hidden) return "";
    const [x, y] = this.point;
    const at = ({ width, height, data }) => data[Math.floor(y * height) * width + Math.floor(x * width)];
    const label = at(this.labels);
    const name = label === this.header.unknown ? "unknown" : this.header.names[label];
    const sure = this.confidence ? ` · ${Math.round((at(this.confidence) / 255) * 100)} %` : "";
    const text = `${name}${sure}`;
    if (this.probe.textContent !== text) this.probe.textContent = text;
    const box = this.canvas; // In the middle of the stage, with room around it.
    for (const { style } of [this.mark, this.probe]) {
      style.left = `${box.offsetLeft + x * box.offsetWidth}px`;
      style.top = `${box.offsetTop + y * box.offsetHeight}px`;
    }
    this.probe.classList.toggle("left", x > 0.6);
    return text;
  }
}
