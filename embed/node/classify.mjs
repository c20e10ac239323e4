// node classify.mjs MODEL PICTURE...   the best classes of each picture
// node classify.mjs MODEL --verify     whether this machine answers as when the model was proven
import { realpathSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import ort from 'onnxruntime-node'
import sharp from 'sharp'
import { Classifier, fit, MAX_PIXELS } from './tinyres.mjs'

// An encoded picture (JPEG, PNG, WebP, ...) to the pixels that the model takes. Colour profiles are left alone and alpha
// is dropped, as Pillow does.
export async function decode(bytes, size) {
  const picture = sharp(bytes, { limitInputPixels: MAX_PIXELS, ignoreIcc: true })
  const { data, info } = await picture.autoOrient().removeAlpha().raw().toBuffer({ resolveWithObject: true })
  return fit({ data, width: info.width, height: info.height }, size)
}

async function main([path, ...pictures]) {
  if (!path || pictures.length === 0) throw new Usage('usage: node classify.mjs MODEL PICTURE... | MODEL --verify')
  const model = await readFile(path).then((bytes) => Classifier.load(ort, bytes)).catch((error) => {
    throw new Usage(`${path}: ${error.message}`)
  })
  if (pictures[0] === '--verify') {
    const golden = JSON.parse(await readFile(`${path}.golden.json`, 'utf8').catch((error) => {
      throw new Usage(`${error.message}; tinyres export writes it beside the model`)
    }))
    const { pictures: count, difference, limit } = await model.verify(golden, (png) => decode(png, model.size))
    console.log(`proven: ${count} golden pictures, logits within ${difference.toExponential(1)} of ${limit.toExponential(1)}`)
    return
  }
  for (const name of pictures) {
    try {
      const best = await model.classify(await decode(await readFile(name), model.size))
      const lines = best.map((guess) => `  ${(100 * guess.probability).toFixed(1).padStart(5)}%  ${guess.name}`)
      console.log([name, ...lines].join('\n'))
    } catch (error) {
      console.error(`error: ${name}: ${error.message.split('\n')[0]}`)
      process.exitCode = 2
    }
  }
}

class Usage extends Error {}

// Run as a program, and not imported by one. The path may lead through links.
if (process.argv[1] && realpathSync(process.argv[1]) === realpathSync(fileURLToPath(import.meta.url)))
  main(process.argv.slice(2)).catch((error) => {
    console.error(`error: ${error.message}`)
    process.exitCode = error instanceof Usage ? 2 : 3
  })
