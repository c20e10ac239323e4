// The page: loads the model beside it, proves that this browser answers as when the model was proven, then classifies
// what is dropped, chosen, pasted or seen by the camera. Nothing is sent anywhere.
//   ?model=FILE      another file than model.onnx; its golden vectors are FILE.golden.json
//   ?backend=wasm    or webgpu; without it, WebGPU where it is there and proves itself, else WASM
import { Classifier, fit, MAX_PIXELS, readMetadata } from './tinyres.mjs'

const RUNTIME = new URL('./node_modules/onnxruntime-web/dist/', import.meta.url).href
const RUNTIMES = {
  wasm: { module: 'ort.wasm.min.mjs', binary: 'ort-wasm-simd-threaded.wasm' },
  webgpu: { module: 'ort.webgpu.min.mjs', binary: 'ort-wasm-simd-threaded.asyncify.wasm' },
}
const MAX_BYTES = 64 * 2 ** 20 // of a picture's file
const asked = new URLSearchParams(location.search)
const at = (id) => document.getElementById(id)
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
let model
let turn = 0 // which picture was asked for last: an earlier one that is slower is not shown

async function start() {
  const file = asked.get('model') ?? 'model.onnx'
  const bytes = await download(file, 'the model')
  const { precision } = readMetadata(bytes)
  const golden = await (await found(`${file}.golden.json`, 'tinyres export writes it beside the model')).json()
  const reasons = []
  for (const backend of await backends(precision)) {
    try {
      const began = performance.now()
      model = await open(backend, bytes)
      const proof = await model.verify(golden, (png) => decode(new Blob([png])))
      const percent = ((100 * proof.difference) / proof.limit).toFixed(proof.difference / proof.limit < 0.1 ? 1 : 0)
      say('about', [
        `${file}, ${megabytes(bytes.length)} in ${precision}, ${model.names.length} classes, on ${name(backend)}.`,
        `Proven in this browser in ${Math.round(performance.now() - began)} ms: ${proof.pictures} golden pictures`,
        `decode to the same pixels and get the same classes; logits differ by ${percent} % of the limit.`,
        ...reasons,
      ].join(' '))
      document.body.dataset.backend = backend
      return
    } catch (error) {
      await model?.session.release()
      model = undefined
      reasons.push(`${name(backend)} is not used: ${error.message}.`)
    }
  }
  throw new Error(reasons.join(' '))
}

// The backends to try, best first. An int8 file is laid out for processors.
async function backends(precision) {
  if (asked.has('backend')) return [asked.get('backend')]
  if (precision === 'int8') return ['wasm']
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null)
  return gpu && !gpu.info?.isFallbackAdapter ? ['webgpu', 'wasm'] : ['wasm'] // a GPU acted in software is slower
}

async function open(backend, bytes) {
  if (!(backend in RUNTIMES)) throw new Error('there is no such backend; valid: wasm, webgpu')
  const { module, binary } = RUNTIMES[backend]
  const ort = await import(RUNTIME + module).catch(() => {
    throw new Error('onnxruntime-web is not beside the page: npm install --ignore-scripts')
  })
  ort.env.logLevel = 'error'
  ort.env.wasm.wasmPaths = RUNTIME
  ort.env.wasm.wasmBinary = await download(RUNTIME + binary, 'the runtime')
  return Classifier.load(ort, bytes, { executionProviders: [backend] })
}

// A picture's file to the pixels that the model takes. Colour profiles are left alone, EXIF orientation is followed.
async function decode(blob) {
  if (blob.size === 0) throw new Error('the file is empty')
  if (blob.size > MAX_BYTES) throw new Error(`the file has ${megabytes(blob.size)}; valid: up to ${megabytes(MAX_BYTES)}`)
  await refuseHuge(blob)
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none' }).catch(() => {
    throw new Error('this is not a picture that the browser can read')
  })
  const pixels = read(bitmap, bitmap.width, bitmap.height)
  bitmap.close()
  return pixels
}

// An <img> knows the size of a picture before its pixels are decoded.
async function refuseHuge(blob) {
  const image = new Image()
  await new Promise((resolve) => {
    image.onload = image.onerror = resolve
    image.src = URL.createObjectURL(blob)
  })
  URL.revokeObjectURL(image.src)
  const { naturalWidth: width, naturalHeight: height } = image
  if (width * height > MAX_PIXELS) throw new Error(`the picture has ${width} x ${height} pixels; valid: up to 100 million`)
}

function read(source, width, height) {
  Object.assign(canvas.canvas, { width, height })
  canvas.drawImage(source, 0, 0)
  return fit(canvas.getImageData(0, 0, width, height), model.size)
}

async function classify(blob) {
  const mine = ++turn
  clear()
  const url = URL.createObjectURL(blob)
  at('shown').onload = at('shown').onerror = () => URL.revokeObjectURL(url)
  at('shown').src = url
  show('shown')
  try {
    const began = performance.now()
    const pixels = await decode(blob)
    const decoded = performance.now()
    const best = await model.classify(pixels)
    if (mine === turn) answer(best, decoded - began, performance.now() - decoded)
  } catch (error) {
    if (mine !== turn) return
    show('hint')
    fail(error)
  }
}

// Classifies what the camera sees until something else is asked for, then lets it go. Between any two steps that may be.
async function watch() {
  const mine = ++turn
  const video = at('camera')
  let stream
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } }).catch((error) => {
      throw new Error(`no camera: ${error.message}`)
    })
    if (mine !== turn) return
    clear()
    show('camera')
    at('switch').textContent = 'Stop the camera'
    video.srcObject = stream
    await video.play()
    while (mine === turn) {
      const began = performance.now()
      const pixels = read(video, video.videoWidth, video.videoHeight)
      const decoded = performance.now()
      const best = await model.classify(pixels)
      if (mine === turn) answer(best, decoded - began, performance.now() - decoded)
      await new Promise(requestAnimationFrame)
    }
  } catch (error) {
    if (mine === turn) fail(error)
  } finally {
    for (const track of stream?.getTracks() ?? []) track.stop()
    if (video.srcObject === stream) {
      video.srcObject = null
      at('switch').textContent = 'Use the camera'
    }
  }
}

function answer(best, decoding, answering) {
  at('best').replaceChildren(...best.map((guess) => {
    const [row, label, bar] = ['li', 'b', 'i'].map((tag) => document.createElement(tag))
    label.textContent = guess.name // text, never HTML: names come out of the file
    bar.style.width = `${100 * guess.probability}%`
    row.append(label, `${(100 * guess.probability).toFixed(1)} %`, bar)
    return row
  }))
  say('time', `${decoding.toFixed(1)} ms to decode and resize, ${answering.toFixed(1)} ms to answer`)
}

function clear() {
  at('best').replaceChildren()
  say('time', '')
  say('error', '')
  at('error').hidden = true
}

function fail(error) {
  clear()
  say('error', error.message)
  at('error').hidden = false
}

function show(id) {
  for (const each of ['hint', 'shown', 'camera']) at(each).hidden = each !== id
}

function say(id, text) {
  at(id).textContent = text
}

const name = (backend) => ({ wasm: 'WASM', webgpu: 'WebGPU' })[backend] ?? backend
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`

async function found(url, mend = 'tinyres export MODEL --example browser makes a folder with all that is needed') {
  const response = await fetch(url)
  if (!response.ok) throw new Error(`${url} is not there (${response.status}): ${mend}`)
  return response
}

// The bytes behind a URL, with progress on the page.
async function download(url, what) {
  const response = await found(url)
  const total = Number(response.headers.get('content-length'))
  const parts = []
  let done = 0
  for (const reader = response.body.getReader(); ;) {
    const { value } = await reader.read()
    if (!value) break
    parts.push(value)
    done += value.length
    if (total) at('progress').value = done / total
    say('about', `Loading ${what}: ${megabytes(done)}${total ? ` of ${megabytes(total)}` : ''}`)
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

at('file').addEventListener('change', ({ target }) => {
  if (target.files[0]) classify(target.files[0])
  target.value = '' // so that the same file can be chosen again
})
at('switch').addEventListener('click', () => (at('camera').srcObject ? turn++ : watch()))
for (const kind of ['dragover', 'dragleave', 'drop'])
  at('drop').addEventListener(kind, (event) => {
    event.preventDefault()
    at('drop').classList.toggle('over', kind === 'dragover')
    if (kind === 'drop' && model && event.dataTransfer.files[0]) classify(event.dataTransfer.files[0])
  })
addEventListener('paste', ({ clipboardData }) => {
  const file = clipboardData.files[0]
  if (model && file) classify(file)
})

await start().then(
  () => {
    at('file').disabled = false
    at('switch').disabled = !navigator.mediaDevices
  },
  (error) => {
    say('about', '')
    at('drop').hidden = at('switch').hidden = true
    fail(error)
  },
)
at('progress').hidden = true
document.body.dataset.ready = model ? 'yes' : 'no'
