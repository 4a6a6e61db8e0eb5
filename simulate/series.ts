/**
 * A recorded series from a CSV file, to be replayed as one device: columns `timestamp,value`, the device is the file's
 * name. A value goes out as the very text of the file, so that what is stored can be compared with the file itself.
 */
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { deviceIdFault } from '../model/ids.ts'

export interface Series {
  readonly device: string
  /** ms since 1970 UTC; in the order of the file. */
  readonly times: readonly number[]
  /** JSON numbers, as the file has them. */
  readonly values: readonly string[]
}

/** A replay that was asked for and cannot be: which file, which line, why. */
export class SeriesError extends Error {}

const TIMESTAMP = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?)(Z|[+-]\d\d:?\d\d)?$/
const JSON_NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/

export async function readSeries(file: string): Promise<Series> {
  const device = basename(file).replace(/\.csv$/i, '')
  const fault = deviceIdFault(device)
  if (fault !== null) throw new SeriesError(`${file}: the file's name is the device id. ${fault}`)
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    throw new SeriesError(`${file}: cannot be read (${error.code ?? error.message}).`)
  })
  return parseSeries(device, text, file)
}

/** The series of a file's text. Throws SeriesError at the first line that is no reading: none is left out in silence. */
export function parseSeries(device: string, text: string, file: string): Series {
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/)
  if (lines.at(-1) === '') lines.pop()
  if (lines[0]?.trim().toLowerCase() !== 'timestamp,value') {
    throw new SeriesError(`${file}: the first line must be 'timestamp,value', it is '${lines[0] ?? ''}'.`)
  }
  const times: number[] = []
  const values: string[] = []
  lines.slice(1).forEach((line, index) => {
    const [timestamp = '', value = '', ...more] = line.split(',')
    const time = parseTimestamp(timestamp)
    const where = `${file}, line ${index + 2}`
    if (more.length > 0) throw new SeriesError(`${where}: has more than two columns.`)
    if (time === null) throw new SeriesError(`${where}: '${timestamp}' is no timestamp.`)
    if (!isNumber(value)) throw new SeriesError(`${where}: '${value}' is no number that JSON can carry.`)
    times.push(time)
    values.push(value)
  })
  return { device, times, values }
}

/** A time without a zone is UTC. */
export function parseTimestamp(text: string): number | null {
  const match = TIMESTAMP.exec(text)
  if (match === null) return null
  const time = Date.parse(`${match[1]}T${match[2]}${match[3] ?? 'Z'}`)
  return Number.isNaN(time) ? null : time
}

function isNumber(text: string): boolean {
  return JSON_NUMBER.test(text) && Number.isFinite(Number(text))
}
