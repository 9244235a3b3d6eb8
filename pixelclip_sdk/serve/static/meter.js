// Speed, and the histogram of confidence under the slider.

const SPAN_MS = 2000;
const SVG = "http://www.w3.org/2000/svg";

export class Meter {
  constructor(fps, trip, server, dropped) {
    Object.assign(this, { fps, trip, server, dropped });
    this.reset();
  }

  reset() {
    this.times = [];
    this.serverDropped = 0;
    for (const place of [this.fps, this.trip, this.server, this.dropped]) place.textContent = "–";
  }

  /** Says that the server has no time for a frame. */
  busy() {
    write(this.server, "busy");
  }

  /** Counts a result: its header, its frame, and what sent the frame. */
  result(header, frame, { source, sent }) {
    const now = performance.now();
    this.times.push(now);
    while (this.times[0] < now - SPAN_MS) this.times.shift();
    const live = frame.server || source?.live;
    const [first] = this.times;
    if (live && now > first + 300) write(this.fps, ((this.times.length - 1) / ((now - first) / 1000)).toFixed(0));
    if (frame.tripMs !== undefined) write(this.trip, `${frame.tripMs.toFixed(0)} ms`);
    write(this.server, `${(header.speed_ms.total ?? 0).toFixed(0)} ms`);
    this.serverDropped = frame.server ? header.dropped : 0;
    const skipped = live && source ? Math.max(source.frames - sent, 0) + header.dropped : this.serverDropped;
    write(this.dropped, live ? skipped : "–");
  }
}

function write(place, text) {
  if (place.textContent !== String(text)) place.textContent = text;
}

/** Draws counts of 0–1 in equal steps; those below the limit look different. */
export function drawHistogram(svg, counts, limit) {
  if (svg.childElementCount !== counts.length) {
    svg.replaceChildren(...counts.map(() => document.createElementNS(SVG, "rect")));
  }
  const { width, height } = svg.viewBox.baseVal;
  const step = width / counts.length;
  const largest = Math.max(...counts, 1);
  counts.forEach((count, i) => {
    const tall = count ? Math.max(1.5, Math.sqrt(count / largest) * height) : 0;
    const bar = svg.children[i];
    const place = { x: i * step + 0.5, y: height - tall, width: step - 1, height: tall };
    for (const [name, value] of Object.entries(place)) bar.setAttribute(name, value);
    bar.classList.toggle("below", (i + 0.5) / counts.length < limit);
  });
}
