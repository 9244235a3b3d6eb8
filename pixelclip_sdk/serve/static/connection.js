// The WebSocket: one connection that comes back by itself. docs/serve.md describes the messages.

const PROTOCOL = "pixelclip.v1";
const LONGEST_WAIT_MS = 5000;

export class Connection {
  /** `on` has the functions state(name, text), hello(message), settings(message), result(header, parts) and
      error(message). */
  constructor(on) {
    this.on = on;
    this.ready = false; // Whether the server has said hello.
    this.settingsId = 0;
    this.failures = 0;
    addEventListener("online", () => this.retry());
  }

  connect() {
    clearTimeout(this.timer);
    const url = new URL("v1/live", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const token = sessionStorage.getItem("token");
    const socket = new WebSocket(url, token ? [PROTOCOL, `bearer.${tokenCharacters(token)}`] : [PROTOCOL]);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.receive(data);
    socket.onclose = (event) => this.lost(event);
    this.socket = socket;
  }

  /** Connects at once if it is waiting to do so. */
  retry() {
    if (this.socket?.readyState === WebSocket.CLOSED) this.connect();
  }

  useToken(token) {
    sessionStorage.setItem("token", token);
    this.connect();
  }

  /** Sends settings, and the words as JSON text unless they stay. Returns the number of the message. */
  sendSettings(settings, words) {
    const text = JSON.stringify({ type: "settings", id: ++this.settingsId, ...settings });
    this.socket.send(words ? `${text.slice(0, -1)},"words":${words}}` : text);
    return this.settingsId;
  }

  sendFrame(id, timeMs, image) {
    const message = new Uint8Array(8 + image.byteLength);
    const head = new DataView(message.buffer);
    head.setUint32(0, id);
    head.setUint32(4, timeMs);
    message.set(new Uint8Array(image), 8);
    this.socket.send(message);
  }

  /** Says that a frame of the server was shown, so that it sends no more than can be shown. */
  sendShown(frame) {
    if (this.ready) this.socket.send(JSON.stringify({ type: "shown", frame }));
  }

  receive(data) {
    if (data instanceof ArrayBuffer) {
      const size = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
      const parts = {};
      let at = 4 + size;
      for (const part of header.parts) {
        parts[part.name] = new Uint8Array(data, at, part.bytes);
        at += part.bytes;
      }
      this.on.result(header, parts);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "hello") {
      this.ready = true;
      this.failures = 0;
      this.on.state("open", "Connected");
      this.on.hello(message);
    } else {
      this.on[message.type]?.(message);
    }
  }

  async lost({ code, reason }) {
    const was = this.ready;
    this.ready = false;
    if (!was && (await this.needsToken())) {
      this.on.state("token", sessionStorage.getItem("token") ? "The token was refused" : "A token is needed");
      return;
    }
    let text = "Reconnecting…";
    if (code === 1013) text = "The server has as many viewers as it takes. Trying again…";
    else if (code === 1008) text = `The server closed the connection${reason ? `: ${reason}` : ""}. Trying again…`;
    this.on.state("lost", text);
    const wait = Math.min(300 * 2 ** this.failures++, LONGEST_WAIT_MS);
    this.timer = setTimeout(() => this.connect(), wait * (0.75 + Math.random() / 2));
  }

  /** A browser does not say why a WebSocket was refused, so ask by HTTP. */
  async needsToken() {
    const token = sessionStorage.getItem("token");
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      const answer = await fetch(new URL("v1/models", document.baseURI), { headers, cache: "no-store" });
      return answer.status === 401 || answer.status === 403;
    } catch {
      return false;
    }
  }
}

/** A subprotocol may not have separators such as "/" or "=": they are percent-encoded. */
function tokenCharacters(token) {
  return encodeURIComponent(token).replace(/[()]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
}
