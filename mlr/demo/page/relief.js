// SPDX-License-Identifier: Apache-2.0
// Points in space that can be turned, drawn pixel by pixel: it needs no graphics card and runs on any phone.

const START = { yaw: 0, pitch: 0, zoom: 1 };
const DEGREE = Math.PI / 180;
const LIMIT = 85; // degrees: what a photo shows has no back
const PER_PIXEL = 0.25; // degrees
const PER_KEY = 5; // degrees
const STEEP = 4; // neighbours further apart than this, in distances on a plain wall, lie on two sides of an edge

export class Relief {
  /**
   * @param {HTMLCanvasElement} canvas where to draw; takes pointers, wheel and keys.
   * @param {(view: {yaw: number, pitch: number, zoom: number}) => void} turned called after every change of the view.
   */
  constructor(canvas, turned) {
    this.canvas = canvas;
    this.turned = turned;
    this.pixels = canvas.getContext("2d").createImageData(canvas.width, canvas.height);
    this.colours = new Uint32Array(this.pixels.data.buffer);
    this.depths = new Float32Array(this.colours.length);
    this.pointers = new Map();
    this.view = { ...START };
    this.#listen();
  }

  /**
   * Show other points.
   * @param {Float32Array} points x, y, z of each, metres.
   * @param {Uint8ClampedArray} rgba colour of each.
   * @param {number} columns points in a row.
   */
  show(points, rgba, columns) {
    this.points = points;
    this.rgba = new Uint32Array(rgba.buffer);
    this.sizes = sizesOf(points, columns);
    const known = points.filter((_, i) => i % 3 === 2 && points[i] > 0).sort();
    this.middle = known[known.length >> 1] || 1;
    this.draw();
  }

  reset() {
    this.#turn({ ...START });
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    if (!this.points) return;
    const { width, height } = this.canvas;
    const { points, rgba, sizes, colours, depths, middle } = this;
    const [sy, cy] = [Math.sin(this.view.yaw * DEGREE), Math.cos(this.view.yaw * DEGREE)];
    const [sp, cp] = [Math.sin(this.view.pitch * DEGREE), Math.cos(this.view.pitch * DEGREE)];
    const focal = 0.75 * width * this.view.zoom;
    colours.fill(0);
    depths.fill(Infinity);
    for (let i = 0, p = 0; p < points.length; i++, p += 3) {
      if (!(points[p + 2] > 0)) continue;
      const ahead = points[p + 2] - middle; // turned about the middle of the depth
      const x = points[p] * cy - ahead * sy;
      const back = points[p] * sy + ahead * cy;
      const y = points[p + 1] * cp - back * sp;
      const z = back * cp + points[p + 1] * sp + middle;
      if (z < 0.05 * middle) continue;
      const side = Math.max(1, Math.ceil((focal * sizes[i]) / z));
      const left = Math.round(width / 2 + (focal * x) / z - side / 2);
      const top = Math.round(height / 2 + (focal * y) / z - side / 2);
      const [right, bottom] = [Math.min(left + side, width), Math.min(top + side, height)];
      for (let v = Math.max(top, 0); v < bottom; v++) {
        for (let at = v * width + Math.max(left, 0), end = v * width + right; at < end; at++) {
          if (z < depths[at]) {
            depths[at] = z;
            colours[at] = rgba[i];
          }
        }
      }
    }
    this.canvas.getContext("2d").putImageData(this.pixels, 0, 0);
  }

  #turn({ yaw = this.view.yaw, pitch = this.view.pitch, zoom = this.view.zoom }) {
    const inside = (angle) => Math.min(LIMIT, Math.max(-LIMIT, angle));
    this.view = { yaw: inside(yaw), pitch: inside(pitch), zoom: Math.min(8, Math.max(0.2, zoom)) };
    this.turned(this.view);
    this.draw();
  }

  #listen() {
    const { canvas, pointers } = this;
    const spread = () => {
      const [a, b] = [...pointers.values()];
      return Math.hypot(a.x - b.x, a.y - b.y) || 1;
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const before = pointers.size === 2 && spread();
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (before) {
        this.#turn({ zoom: (this.view.zoom * spread()) / before });
      } else {
        this.#turn({
          yaw: this.view.yaw + PER_PIXEL * (event.clientX - last.x),
          pitch: this.view.pitch + PER_PIXEL * (event.clientY - last.y),
        });
      }
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#turn({ zoom: this.view.zoom * Math.exp(-event.deltaY / 500) });
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const { yaw, pitch, zoom } = this.view;
      const views = {
        ArrowLeft: { yaw: yaw - PER_KEY }, ArrowRight: { yaw: yaw + PER_KEY },
        ArrowUp: { pitch: pitch - PER_KEY }, ArrowDown: { pitch: pitch + PER_KEY },
        "+": { zoom: zoom * 1.2 }, "=": { zoom: zoom * 1.2 }, "-": { zoom: zoom / 1.2 },
        Home: START,
      };
      if (!(event.key in views)) return;
      event.preventDefault(); // the page must not scroll
      this.#turn(views[event.key]);
    });
  }
}

/** Side of each point, in metres, at which it touches its neighbours to the right and below. */
function sizesOf(points, columns) {
  const apart = (a, b) => Math.hypot(points[3 * a] - points[3 * b], points[3 * a + 1] - points[3 * b + 1], points[3 * a + 2] - points[3 * b + 2]);
  return Float32Array.from({ length: points.length / 3 }, (_, i) => {
    const next = (i + 1) % columns ? i + 1 : i - 1;
    const below = 3 * (i + columns) < points.length ? i + columns : i - columns;
    const across = Math.abs(points[3 * next] - points[3 * i]);
    const needed = Math.max(apart(i, next), below >= 0 ? apart(i, below) : 0);
    return needed < STEEP * across ? needed : across;
  });
}
