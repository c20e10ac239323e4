// A file exported by tinyres, in JavaScript: its classes, its preprocessing, its answers, its golden vectors.
// The same file serves Node and browsers; each brings its onnxruntime (`ort`) and decodes pictures itself.

export const MAX_PIXELS = 100_000_000 // a picture that claims more is refused before it is decoded, as in Python

export class Classifier {
  // From the bytes of an ONNX file. `options` go to ort.InferenceSession.create, executionProviders for one.
  static async load(ort, bytes, options = {}) {
    const metadata = readMetadata(bytes)
    const session = await ort.InferenceSession.create(bytes, options)
    return new Classifier(ort, session, metadata)
  }

  constructor(ort, session, metadata) {
    this.ort = ort
    this.session = session
    this.precision = metadata.precision
    this.size = metadata.spec.preprocess.image_size
    this.ids = metadata.spec.class_ids
    this.names = metadata.spec.class_names
    this.last = Promise.resolve() // a session of onnxruntime-web runs one call at a time
  }

  // Logits of one or several pictures: RGB bytes of `fit`, one picture after the other, to N * classes numbers.
  async logits(pixels) {
    const { size } = this
    const count = pixels.length / (size * size * 3)
    if (!(pixels instanceof Uint8Array) || !Number.isInteger(count) || count === 0)
      throw new TypeError(`expected N * ${size} * ${size} * 3 bytes, got ${pixels?.length}`)
    const image = new this.ort.Tensor('uint8', pixels, [count, size, size, 3])
    const run = this.last.then(() => this.session.run({ image }, ['logits']))
    this.last = run.catch(() => {})
    const { data } = (await run).logits
    if (data.length !== count * this.ids.length || !data.every(Number.isFinite))
      throw new Error('the runtime gave no complete set of finite logits')
    return data
  }

  // The best classes of one picture, best first: [{ id, name, probability }].
  async classify(pixels, top = 5) {
    const logits = await this.logits(pixels)
    const most = logits.reduce((a, b) => Math.max(a, b))
    const odds = Array.from(logits, (logit) => Math.exp(logit - most))
    const sum = odds.reduce((a, b) => a + b)
    return odds
      .map((odd, index) => ({ id: this.ids[index], name: this.names[index], probability: odd / sum }))
      .sort((a, b) => b.probability - a.probability)
      .slice(0, top)
  }

  // Whether this runtime answers, and `decode` (PNG bytes to RGB bytes) decodes, as when the file was proven.
  // Takes the parsed <file>.golden.json; throws where not.
  async verify(golden, decode) {
    if (golden?.schema !== 2 || !golden.pictures?.length || !Number.isFinite(golden.limit))
      throw new Error('these are no golden vectors of schema 2')
    let squares = 0
    let count = 0
    for (const [at, picture] of golden.pictures.entries()) {
      const pixels = bytesOf(picture.pixels)
      const decoded = await decode(bytesOf(picture.png))
      if (decoded.length !== pixels.length || decoded.some((byte, index) => byte !== pixels[index]))
        throw new Error(`golden picture ${at} is decoded to other pixels than in training`)
      const logits = await this.logits(pixels)
      if (logits.length !== picture.artifact_logits.length) throw new Error('the golden vectors are of another model')
      const [best, known] = [logits, picture.artifact_logits].map(indexOfLargest)
      if (this.ids[known] !== picture.label) throw new Error(`the label of golden picture ${at} is not that of its logits`)
      const lead = picture.artifact_logits[known] - picture.artifact_logits[best]
      if (!(lead <= 2 * golden.limit)) // a tie within rounding may fall to either side
        throw new Error(`golden picture ${at} is answered with ${this.ids[best]}, not ${picture.label}`)
      for (const [index, logit] of logits.entries()) squares += (logit - picture.artifact_logits[index]) ** 2
      count += logits.length
    }
    const difference = Math.sqrt(squares / count)
    if (!(difference <= golden.limit))
      throw new Error(`logits differ by ${difference.toExponential(1)}; valid: up to ${golden.limit.toExponential(1)}`)
    return { pictures: golden.pictures.length, difference, limit: golden.limit }
  }
}

// A decoded picture ({ data, width, height } with 1 to 4 bytes a pixel) to size * size * 3 bytes: the short side
// becomes `size`, then the middle is cut out. Bit for bit what tinyres makes in Python with Pillow's bicubic; a canvas or
// another library resizes otherwise, and the network would see other pictures than it was trained on.
export function fit({ data, width, height }, size) {
  if (!(width > 0 && height > 0)) throw new Error('the picture has no pixels')
  let pixels = rgb(data, width * height)
  if (width !== size || height !== size) {
    const scale = size / Math.min(width, height)
    const wide = Math.max(size, roundHalfEven(width * scale))
    const high = Math.max(size, roundHalfEven(height * scale))
    if (wide * high > MAX_PIXELS) throw new Error(`a picture of ${width}x${height} is too narrow`)
    pixels = resizeTurned(pixels, width, height, wide)
    pixels = resizeTurned(pixels, height, wide, high)
    const [left, top] = [Math.floor((wide - size) / 2), Math.floor((high - size) / 2)]
    const cut = new Uint8Array(size * size * 3)
    for (let y = 0; y < size; y++) {
      const start = ((top + y) * wide + left) * 3
      cut.set(pixels.subarray(start, start + size * 3), y * size * 3)
    }
    pixels = cut
  }
  return pixels
}

function rgb(data, count) {
  const channels = data.length / count
  if (![1, 2, 3, 4].includes(channels)) throw new Error(`${channels} bytes a pixel; valid: 1 to 4`)
  if (channels === 3) return Uint8Array.from(data)
  const pixels = new Uint8Array(count * 3)
  for (let at = 0; at < count; at++)
    for (let c = 0; c < 3; c++) pixels[at * 3 + c] = data[at * channels + (channels > 2 ? c : 0)]
  return pixels
}

// One pass of Pillow's resampling, in fixed point with 22 bits: every row of `width` pixels becomes one of `size`. Rows
// come out as columns, so that a second pass does the columns and turns the picture back.
function resizeTurned(from, width, height, size) {
  const to = new Uint8Array(size * height * 3)
  const scale = width / size
  const widen = Math.max(scale, 1) // when it shrinks, the filter covers all that becomes one pixel
  for (let x = 0; x < size; x++) {
    const center = (x + 0.5) * scale
    const first = Math.max(0, Math.trunc(center - 2 * widen + 0.5))
    const last = Math.min(width, Math.trunc(center + 2 * widen + 0.5))
    const weights = []
    for (let at = first; at < last; at++) weights.push(bicubic((at - center + 0.5) * (1 / widen)))
    const sum = weights.reduce((a, b) => a + b)
    const fixed = Int32Array.from(weights, (weight) => (weight / sum) * 2 ** 22 + (weight < 0 ? -0.5 : 0.5))
    for (let y = 0; y < height; y++)
      for (let c = 0; c < 3; c++) {
        let total = 2 ** 21
        for (let k = 0, at = (y * width + first) * 3 + c; k < fixed.length; k++, at += 3) total += fixed[k] * from[at]
        to[(x * height + y) * 3 + c] = Math.min(255, Math.max(0, Math.floor(total / 2 ** 22)))
      }
  }
  return to
}

function bicubic(x) {
  x = Math.abs(x)
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0
}

function roundHalfEven(value) {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

// What tinyres wrote into the file's metadata, read off its bytes, since onnxruntime does not show it to JavaScript.
export function readMetadata(bytes) {
  let text
  try {
    for (const [number, pair] of fields(bytes))
      if (number === 14) { // ModelProto.metadata_props: pairs of key (1) and value (2)
        const entry = new Map(fields(pair))
        if (new TextDecoder().decode(entry.get(1)) === 'tinyres') text = new TextDecoder().decode(entry.get(2))
      }
  } catch (error) {
    throw new Error('this is not an ONNX model', { cause: error })
  }
  if (text === undefined) throw new Error('this model was not exported by tinyres')
  const metadata = JSON.parse(text)
  if (metadata.schema !== 1) throw new Error('this model was exported by a newer tinyres')
  if (metadata.input !== 'image') throw new Error('this model takes float tensors; export it with --input image')
  return metadata
}

// The [number, bytes] of each field of a protobuf message that has bytes; numbers are passed over.
function* fields(bytes) {
  let at = 0
  const varint = () => {
    let value = 0
    for (let factor = 1; ; factor *= 128) {
      if (at >= bytes.length || factor > 2 ** 63) throw new RangeError('cut short')
      value += (bytes[at] & 127) * factor
      if (bytes[at++] < 128) return value
    }
  }
  while (at < bytes.length) {
    const key = varint()
    const kind = key % 8
    if (kind === 0) varint()
    else if (kind === 1 || kind === 5) at += kind === 1 ? 8 : 4
    else if (kind === 2) {
      const size = varint()
      if (at + size > bytes.length) throw new RangeError('cut short')
      yield [Math.floor(key / 8), bytes.subarray(at, at + size)]
      at += size
    } else throw new RangeError('no protobuf message')
  }
}

function indexOfLargest(numbers) {
  return numbers.reduce((best, number, index) => (number > numbers[best] ? index : best), 0)
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))
}
