// Play, pause and position of a video file.

export class Transport {
  constructor(bar, moved) {
    this.bar = bar;
    [this.play, this.seek, this.time] = ["play", "seek", "time"].map((id) => document.getElementById(id));
    this.play.onclick = () => this.video && (this.video.paused ? this.video.play() : this.video.pause());
    this.seek.oninput = () => {
      if (this.video) this.video.currentTime = (this.seek.value / this.seek.max) * this.video.duration;
    };
    this.moved = moved;
  }

  /** Follows a source if it is a file with a length. */
  use(source) {
    const video = source?.element instanceof HTMLVideoElement && source.stream === undefined ? source.element : null;
    this.video = video;
    this.bar.hidden = !video;
    if (!video) return;
    video.onplay = video.onpause = () => this.show();
    video.ontimeupdate = () => this.show();
    video.onseeked = () => this.moved();
    this.show();
  }

  show() {
    const { video } = this;
    if (!video) return;
    this.play.setAttribute("aria-label", video.paused ? "Play" : "Pause");
    this.play.classList.toggle("paused", video.paused);
    const length = Number.isFinite(video.duration) ? video.duration : 0;
    if (document.activeElement !== this.seek || !video.seeking) {
      this.seek.value = length ? (video.currentTime / length) * this.seek.max : 0;
    }
    const text = `${clock(video.currentTime)} / ${clock(length)}`;
    this.time.textContent = text;
    this.seek.setAttribute("aria-valuetext", text);
  }
}

const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
