// Where frames come from in the browser: a photo, a camera, a video file.
//
// A source has `live`, `element` (what is drawn), `width`, `height`, `timeMs`, `close()`, and calls `fresh()`
// when there is a new frame.

export class Photo {
  live = false;
  timeMs = 0;

  static async open(blob) {
    const photo = new Photo();
    // Upright, whatever the camera wrote into the file.
    photo.element = await createImageBitmap(blob);
    [photo.width, photo.height] = [photo.element.width, photo.element.height];
    return photo;
  }

  close() {
    this.element.close();
  }
}

class Film {
  live = true;
  frames = 0; // That the source has had.

  constructor(fresh) {
    this.fresh = fresh;
    this.element = document.createElement("video");
    Object.assign(this.element, { muted: true, playsInline: true, preload: "auto" });
  }

  get width() {
    return this.element.videoWidth;
  }

  get height() {
    return this.element.videoHeight;
  }

  watch() {
    const { element } = this;
    const next = (_, about) => {
      if (this.closed) return;
      this.frames = about?.presentedFrames ?? this.frames + 1;
      if (element.readyState >= 2 && element.videoWidth) this.fresh();
      this.watch();
    };
    if (element.requestVideoFrameCallback) element.requestVideoFrameCallback(next);
    else requestAnimationFrame(() => next());
  }
}

export class Camera extends Film {
  static async open(fresh, deviceId) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give the camera only to pages on https:// or localhost. Open this page there, " +
        "or choose a photo or a video.");
    }
    const camera = new Camera(fresh);
    const where = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
    try {
      const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
      camera.stream = await navigator.mediaDevices.getUserMedia({ video: { ...where, ...size }, audio: false });
    } catch (error) {
      throw new Error(REFUSALS[error.name] ?? `The camera cannot be used: ${error.message || error.name}.`);
    }
    camera.stream.getVideoTracks()[0].onended = () => camera.ended?.();
    camera.element.srcObject = camera.stream;
    await camera.element.play();
    camera.watch();
    return camera;
  }

  get deviceId() {
    return this.stream.getVideoTracks()[0].getSettings().deviceId;
  }

  get timeMs() {
    return performance.now();
  }

  static async devices() {
    const all = await navigator.mediaDevices.enumerateDevices();
    return all.filter((device) => device.kind === "videoinput");
  }

  close() {
    this.closed = true;
    for (const track of this.stream.getTracks()) track.stop();
    this.element.srcObject = null;
  }
}

const REFUSALS = {
  NotAllowedError: "The browser may not use the camera. Allow it in the address bar, then try again.",
  NotFoundError: "No camera was found. Connect one, or choose a photo or a video.",
  NotReadableError: "Another program uses the camera. Close it there, then try again.",
  OverconstrainedError: "That camera is no longer there. Choose another one.",
};

export class Video extends Film {
  static async open(file, fresh) {
    const video = new Video(fresh);
    const { element } = video;
    element.loop = true;
    element.src = URL.createObjectURL(file);
    try {
      await new Promise((resolve, reject) => {
        element.onloadeddata = resolve;
        element.onerror = reject;
      });
      if (!element.videoWidth) throw new Error("no picture");
    } catch {
      video.close();
      throw new Error(`This browser cannot play ${file.name}. MP4 with H.264, or WebM, play everywhere.`);
    }
    video.watch();
    await element.play();
    return video;
  }

  get timeMs() {
    return this.element.currentTime * 1000;
  }

  close() {
    this.closed = true;
    this.element.pause();
    URL.revokeObjectURL(this.element.src);
    this.element.removeAttribute("src");
    this.element.load();
  }
}

/** Returns a photo or a video of a file that a person chose. */
export async function openFile(file, fresh) {
  const film = file.type.startsWith("video/") || /\.(mp4|m4v|mov|webm|ogv|mkv|avi)$/i.test(file.name);
  if (film) return Video.open(file, fresh);
  try {
    return await Photo.open(file);
  } catch {
    throw new Error(`This browser cannot read ${file.name} as a picture. JPEG, PNG and WebP work everywhere.`);
  }
}
