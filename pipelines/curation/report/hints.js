// Known colours on a preview, at once: the equations of diffcolor/hints.py on a coarse grid, and Kopf et al. (2007) back to
// the preview's pixels. The picture at full size is made by `review`.
const CELLS = 6000; // of the grid; the time grows with the square of this number
const REACH = 1; // cells around a pixel from which it takes its change
const SAME_GRAY = 0.1; // standard deviation of gray, of full scale, between a pixel and its cells

const linear = (coded) => (coded <= 0.04045 ? coded / 12.92 : ((coded + 0.055) / 1.055) ** 2.4);
const coded = (value) => (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055);
const compressed = (t) => (t > 216 / 24389 ? Math.cbrt(t) : (t * 24389) / 3132 + 4 / 29);
const expanded = (f) => (f > 6 / 29 ? f ** 3 : ((f - 4 / 29) * 3132) / 24389);
const luma = (r, g, b) => 0.299 * r + 0.587 * g + 0.114 * b;

// CIELAB (D65) a*b* of sRGB in [0, 1].
function abOf(red, green, blue) {
  const [r, g, b] = [linear(red), linear(green), linear(blue)];
  const x = compressed((0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047);
  const y = compressed(0.2126729 * r + 0.7151522 * g + 0.072175 * b);
  const z = compressed((0.0193339 * r + 0.119192 * g + 0.9503041 * b) / 1.08883);
  return [500 * (x - y), 200 * (y - z)];
}

// sRGB of a luma and a*b*: the lightness is found by bisection, the chroma reduced where the gray leaves no room for it.
function withAb(gray, a, b) {
  const rgb = (y) => {
    const [X, Y, Z] = [0.95047 * expanded(y + a / 500), expanded(y), 1.08883 * expanded(y - b / 200)];
    return [3.2404542 * X - 1.5371385 * Y - 0.4985314 * Z, -0.969266 * X + 1.8760108 * Y + 0.041556 * Z,
      0.0556434 * X - 0.2040259 * Y + 1.0572252 * Z].map(coded);
  };
  let low = compressed(linear(gray)) - 0.4, high = low + 0.8;
  for (let step = 0; step < 14; step++) {
    const middle = (low + high) / 2;
    if (luma(...rgb(middle)) < gray) low = middle; else high = middle;
  }
  return within(gray, rgb((low + high) / 2));
}
// A colour of exactly this luma, its chroma reduced until every channel is in [0, 1].
function within(gray, rgb) {
  const off = gray - luma(...rgb);
  const chroma = rgb.map((value) => value + off - gray);
  const room = chroma.map((value) => (value > 0 ? (1 - gray) / value : value < 0 ? -gray / value : Infinity));
  const share = Math.min(1, ...room);
  return chroma.map((value) => gray + share * value);
}
const median = (values) => values.sort((p, q) => p - q)[values.length >> 1];

// eslint-disable-next-line no-unused-vars -- the page's own script makes one
class HintPreview {
  // pixels: an ImageData, the preview. setting: the constants of diffcolor/hints.py.
  constructor(pixels, setting) {
    const { width, height, data } = pixels;
    const scale = Math.min(1, Math.sqrt(CELLS / (width * height)));
    Object.assign(this, { width, height, data, setting });
    this.across = Math.max(1, Math.round(width * scale));
    this.down = Math.max(1, Math.round(height * scale));
    this.gray = new Float32Array(width * height);
    for (let i = 0; i < this.gray.length; i++) this.gray[i] = luma(data[4 * i], data[4 * i + 1], data[4 * i + 2]) / 255;
    const middles = (count, size) => Array.from({ length: count }, (_, k) => Math.floor(((k + 0.5) * size) / count));
    this.columns = middles(this.across, width);
    this.rows = middles(this.down, height);
    this.sample();
    this.resist();
  }

  // The cell of a pixel. Along the shorter side neighbours are next to each other: that keeps the equations' band narrow.
  at(cellX, cellY) { return this.across < this.down ? cellY * this.across + cellX : cellX * this.down + cellY; }
  columnOf(x) { return Math.min(this.across - 1, Math.floor((x * this.across) / this.width)); }
  rowOf(y) { return Math.min(this.down - 1, Math.floor((y * this.down) / this.height)); }

  // Gray and sRGB around the middle of each cell. A mean over the whole cell would join what an edge parts.
  sample() {
    const cells = this.across * this.down;
    this.cellRgb = Array.from({ length: 3 }, () => new Float64Array(cells));
    this.cellAb = [new Float64Array(cells), new Float64Array(cells)];
    this.cellGray = new Float64Array(cells);
    this.rows.forEach((y, row) => this.columns.forEach((x, column) => {
      const cell = this.at(column, row);
      let count = 0;
      for (let v = Math.max(0, y - 1); v <= Math.min(this.height - 1, y + 1); v++) {
        for (let u = Math.max(0, x - 1); u <= Math.min(this.width - 1, x + 1); u++) {
          count += 255;
          for (let c = 0; c < 3; c++) this.cellRgb[c][cell] += this.data[4 * (v * this.width + u) + c];
        }
      }
      for (const plane of this.cellRgb) plane[cell] /= count;
      const rgb = this.cellRgb.map((plane) => plane[cell]);
      this.cellGray[cell] = luma(...rgb);
      [this.cellAb[0][cell], this.cellAb[1][cell]] = abOf(...rgb);
    }));
  }

  // How well neighbouring cells conduct: from middle to middle resistances add up; a wider cell conducts better.
  resist() {
    const { edge, leak } = this.setting;
    const table = Float64Array.from({ length: 256 }, (_, step) => 1 / (Math.exp(-((step / 255 / edge) ** 2) / 2) + leak));
    const step = (i, j) => table[Math.round(255 * Math.abs(this.gray[i] - this.gray[j]))];
    this.right = new Float64Array(this.across * this.down);
    this.below = new Float64Array(this.across * this.down);
    this.rows.forEach((y, row) => this.columns.forEach((x, column) => {
      const cell = this.at(column, row);
      let right = 0, below = 0;
      for (let u = x; u < this.columns[column + 1]; u++) right += step(y * this.width + u, y * this.width + u + 1);
      for (let v = y; v < this.rows[row + 1]; v++) below += step(v * this.width + x, (v + 1) * this.width + x);
      this.right[cell] = this.height / this.down / right;
      this.below[cell] = this.width / this.across / below;
    }));
  }

  // The cells of which a hint speaks: of a point its own, or the neighbour that is as light as the point; of a box those
  // that are about as light as its middle.
  cellsOf({ x, y, width, height }) {
    const near = [], gray = (cell) => this.cellGray[cell];
    const [left, top] = [this.columnOf(x), this.rowOf(y)];
    if (width <= this.width / this.across && height <= this.height / this.down) {
      const pixel = (v, most) => Math.min(most - 1, Math.max(0, Math.floor(v)));
      const wanted = this.gray[pixel(y + height / 2, this.height) * this.width + pixel(x + width / 2, this.width)];
      for (let v = Math.max(0, top - 1); v <= Math.min(this.down - 1, top + 1); v++) {
        for (let u = Math.max(0, left - 1); u <= Math.min(this.across - 1, left + 1); u++) near.push(this.at(u, v));
      }
      const own = this.at(left, top), off = (cell) => Math.abs(gray(cell) - wanted) + (cell === own ? 0 : 0.02);
      return [near.reduce((best, cell) => (off(cell) < off(best) ? cell : best), own)];
    }
    const inner = [], [right, bottom] = [this.columnOf(x + width - 1), this.rowOf(y + height - 1)];
    for (let v = top; v <= bottom; v++) {
      for (let u = left; u <= right; u++) {
        near.push(this.at(u, v));
        if (Math.abs(2 * u - left - right) <= (right - left) / 2 && Math.abs(2 * v - top - bottom) <= (bottom - top) / 2) {
          inner.push(gray(this.at(u, v)));
        }
      }
    }
    const middle = median(inner.length ? inner : near.map(gray));
    const alike = near.filter((cell) => Math.abs(gray(cell) - middle) <= this.setting.alike);
    return alike.length ? alike : near;
  }

  // RGBA of the preview with hints: {x, y, width, height} in its pixels, and rgb in [0, 1] or null for no colour.
  paint(hints) {
    const cells = this.across * this.down, owner = new Int32Array(cells).fill(-1);
    const places = hints.map((hint) => this.cellsOf(hint));
    const area = (index) => hints[index].width * hints[index].height;
    // Of hints that overlap, the smaller one counts.
    [...hints.keys()].sort((i, j) => area(j) - area(i)).forEach((index) => { for (const cell of places[index]) owner[cell] = index; });
    const wanted = Array.from({ length: 3 }, () => new Float64Array(cells));
    hints.forEach((hint, index) => {
      const own = places[index].filter((cell) => owner[cell] === index);
      if (!own.length) return;
      const ab = hint.rgb && abOf(...hint.rgb), now = this.cellAb.map((plane) => median(own.map((cell) => plane[cell])));
      for (const cell of own) {
        if (ab) for (let c = 0; c < 2; c++) wanted[c][cell] = ab[c] - now[c];
        else wanted[2][cell] = 1;
      }
    });
    this.solve(owner, wanted);
    return this.composed(this.changes(wanted));
  }

  // Solves the equations in place, by a Cholesky factor of their band.
  solve(owner, fields) {
    const { across, down } = this, cells = across * down, band = Math.min(across, down), wide = band + 1;
    const { fade, certainty, pixels } = this.setting;
    // The 8 neighbours of diffcolor/hints.py conduct 1 + 2 / sqrt(2) as well as these 4.
    const forget = (fade * pixels) / cells / (1 + Math.SQRT2);
    const matrix = new Float64Array(cells * wide);
    const link = (one, other, value) => {
      matrix[one * wide + band] += value;
      matrix[other * wide + band] += value;
      matrix[Math.max(one, other) * wide + band - Math.abs(one - other)] -= value;
    };
    for (let y = 0; y < down; y++) {
      for (let x = 0; x < across; x++) {
        const cell = this.at(x, y);
        matrix[cell * wide + band] += forget + (owner[cell] < 0 ? 0 : certainty);
        if (x + 1 < across) link(cell, this.at(x + 1, y), this.right[cell]);
        if (y + 1 < down) link(cell, this.at(x, y + 1), this.below[cell]);
      }
    }
    for (let i = 0; i < cells; i++) {
      const mine = i * wide + band - i, first = Math.max(0, i - band);
      for (let j = first; j <= i; j++) {
        const theirs = j * wide + band - j;
        let sum = matrix[mine + j];
        for (let k = first; k < j; k++) sum -= matrix[mine + k] * matrix[theirs + k];
        matrix[mine + j] = j < i ? sum / matrix[theirs + j] : Math.sqrt(sum);
      }
    }
    for (const field of fields) {
      for (let i = 0; i < cells; i++) {
        const mine = i * wide + band - i;
        let sum = owner[i] < 0 ? 0 : certainty * field[i];
        for (let k = Math.max(0, i - band); k < i; k++) sum -= matrix[mine + k] * field[k];
        field[i] = sum / matrix[mine + i];
      }
      for (let i = cells - 1; i >= 0; i--) {
        const mine = i * wide + band - i;
        field[i] /= matrix[mine + i];
        for (let k = Math.max(0, i - band); k < i; k++) field[k] -= matrix[mine + k] * field[i];
      }
    }
  }

  // What each cell gains in R - luma and B - luma.
  changes([da, db, neutral]) {
    const red = new Float64Array(da.length), blue = new Float64Array(da.length);
    for (let cell = 0; cell < da.length; cell++) {
      const keep = 1 - Math.min(1, Math.max(0, neutral[cell])), gray = this.cellGray[cell];
      const [r, , b] = withAb(gray, (this.cellAb[0][cell] + da[cell]) * keep, (this.cellAb[1][cell] + db[cell]) * keep);
      red[cell] = r - this.cellRgb[0][cell];
      blue[cell] = b - this.cellRgb[2][cell];
    }
    return [red, blue];
  }

  composed([red, blue]) {
    const out = new Uint8ClampedArray(this.data);
    const likeness = Float64Array.from({ length: 256 }, (_, step) => Math.max(1e-4, Math.exp(-((step / 255 / SAME_GRAY) ** 2) / 2)));
    for (let y = 0; y < this.height; y++) {
      const v = ((y + 0.5) * this.down) / this.height - 0.5, row = Math.round(v);
      for (let x = 0; x < this.width; x++) {
        const u = ((x + 0.5) * this.across) / this.width - 0.5, column = Math.round(u), i = y * this.width + x;
        let dr = 0, db = 0, sum = 0;
        for (let p = Math.max(0, row - REACH); p <= Math.min(this.down - 1, row + REACH); p++) {
          for (let q = Math.max(0, column - REACH); q <= Math.min(this.across - 1, column + REACH); q++) {
            const cell = this.at(q, p), near = Math.max(0.02, 1 - Math.abs(p - v)) * Math.max(0.02, 1 - Math.abs(q - u));
            const weight = near * likeness[Math.round(255 * Math.abs(this.gray[i] - this.cellGray[cell]))];
            dr += weight * red[cell];
            db += weight * blue[cell];
            sum += weight;
          }
        }
        if (Math.abs(dr) + Math.abs(db) < sum / 512) continue;
        const gray = this.gray[i], r = this.data[4 * i] / 255 + dr / sum, b = this.data[4 * i + 2] / 255 + db / sum;
        const rgb = within(gray, [r, (gray - 0.299 * r - 0.114 * b) / 0.587, b]);
        for (let c = 0; c < 3; c++) out[4 * i + c] = Math.round(255 * rgb[c]);
      }
    }
    return out;
  }
}
