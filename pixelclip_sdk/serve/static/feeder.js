// Sends the frames of a source in the browser: one at a time, always the newest, never a queue.

const SHOWN_PX = 1280; // Longer side of what is shown.
const FILM_PX = 640; // Longer side of what is sent.
const PHOTO_PX = 1024; // A photo is sent once, so it may be sharper.
const LOST_MS = 20000; // A frame without an answer for so long is lost.

export class Feeder {
  constructor(connection) {
    this.connection = connection;
    this.source = null;
    this.waiting = null; // The frame whose answer has not come: {id, canvas, sentMs}.
    this.due = false; // Whether there is something to send.
    this.allowed = false; // Whether words are in effect.
    this.id = 0;
    this.sent = 0;
    // One is shown, one has a result that is being decoded, one is being sent.
    this.canvases = [0, 1, 2].map(() => document.createElement("canvas"));
    this.scaled = document.createElement("canvas");
  }

  use(source) {
    this.source?.close();
    Object.assign(this, { source, waiting: null, sent: 0 });
    this.send();
  }

  /** Sends the newest frame, now or as soon as the last one is answered. */
  async send() {
    this.due = true;
    const { source, connection } = this;
    if (this.waiting && performance.now() - this.waiting.sentMs > LOST_MS) this.waiting = null;
    if (!source?.width || this.waiting || !this.allowed || !connection.ready) return;
    this.due = false;
    const id = (this.id = (this.id + 1) % 2 ** 32);
    const canvas = this.canvases[id % 3];
    const frame = (this.waiting = { id, canvas, sentMs: performance.now() });
    const timeMs = Math.max(0, Math.round(source.timeMs)) % 2 ** 32;
    paint(canvas, source.element, source, SHOWN_PX);
    paint(this.scaled, canvas, canvas, source.live ? FILM_PX : PHOTO_PX);
    const blob = await new Promise((done) => this.scaled.toBlob(done, "image/jpeg", source.live ? 0.85 : 0.93));
    const bytes = await blob.arrayBuffer();
    if (this.waiting !== frame) return; // Another source was chosen meanwhile.
    if (!connection.ready) {
      this.waiting = null;
      return;
    }
    frame.sentMs = performance.now();
    this.sent++;
    connection.sendFrame(id, timeMs, bytes);
  }

  /** Returns the frame that an answer belongs to, or null if nobody waits for it, and sends the next one. */
  answered(id) {
    const frame = this.waiting;
    if (!frame || frame.id !== id) return null;
    this.waiting = null;
    frame.tripMs = performance.now() - frame.sentMs;
    if (this.due) this.send();
    return frame;
  }

  disconnected() {
    Object.assign(this, { waiting: null, allowed: false, due: true });
  }
}

function paint(canvas, image, { width, height }, longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const size = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "medium";
  context.fillStyle = "#fff"; // Transparent pixels are white, as everywhere in the SDK.
  context.fillRect(0, 0, ...size);
  context.drawImage(image, 0, 0, ...size);
}
