// Decodes grey PNG files exactly, 8 or 16 bits. A canvas does not: it has 8 bits, and browsers that protect
// against fingerprinting add noise to what is read from it, which would make other labels.

/** Returns {width, height, data}: one number a pixel, in rows. */
export async function decodeGrey(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = view.getUint32(16), height = view.getUint32(20), depth = bytes[24] / 8;
  if (view.getUint32(0) !== 0x89504e47 || bytes[25] !== 0 || bytes[28] !== 0 || !(depth === 1 || depth === 2)) {
    throw new Error("expected a grey PNG of 8 or 16 bits without interlacing");
  }
  const chunks = [];
  for (let at = 8; at < bytes.length; ) {
    const size = view.getUint32(at);
    if (view.getUint32(at + 4) === 0x49444154) chunks.push(bytes.subarray(at + 8, at + 8 + size)); // IDAT
    at += size + 12;
  }
  const inflated = new Blob(chunks).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(inflated).arrayBuffer());
  const stride = width * depth;
  if (raw.length !== (stride + 1) * height) throw new Error("the PNG file is not complete");
  const rows = unfilter(raw, stride, height, depth);
  if (depth === 1) return { width, height, data: rows };
  const wide = new Uint16Array(width * height);
  for (let i = 0; i < wide.length; i++) wide[i] = (rows[2 * i] << 8) | rows[2 * i + 1];
  return { width, height, data: wide };
}

/** Undoes the filter of each row (PNG specification, section 9). */
function unfilter(raw, stride, height, step) {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)], from = y * (stride + 1) + 1, to = y * stride;
    for (let x = 0; x < stride; x++) {
      const left = x >= step ? out[to + x - step] : 0;
      const up = y ? out[to + x - stride] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = paeth(left, up, y && x >= step ? out[to + x - stride - step] : 0);
      out[to + x] = raw[from + x] + guess;
    }
  }
  return out;
}

function paeth(left, up, corner) {
  const a = Math.abs(up - corner), b = Math.abs(left - corner), c = Math.abs(left + up - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}
