/**
 * What older versions left, packed: data directories and one build. A pack is a tar of sparse files, compressed by Brotli, which
 * Node has built in: `tar` is all that a machine needs beside it. `test/data/upgrade/make.ts` made them.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { brotliCompressSync, brotliDecompressSync, constants } from 'node:zlib'
import { pino } from 'pino'
import { openView } from '../../manager/adapters.ts'

const FOLDER = 'test/data/upgrade'
const TAR_BYTES_MAX = 256 << 20

/** One reading whose message was acknowledged. */
export interface KnownReading {
  readonly device: string
  readonly metric: string
  /** ms since 1970; null for that of its receipt, which only the old process knew. */
  readonly ts: number | null
  /** What the device gave, ms; null for none. Differs from `ts` for a clock that was ahead. */
  readonly sentTs: number | null
  /** As JSON text, so that an integer beyond 2^53 keeps its digits. */
  readonly value: string
}

export interface KnownDirectory {
  readonly commit: string
  readonly schema: number
  /** `killed`: by SIGKILL, with a plan open whose insert was done, and later readings in the log only. `ended`: by SIGTERM. */
  readonly how: 'killed' | 'ended'
  readonly acknowledged: readonly KnownReading[]
  /** How many of them were in ClickHouse when the pack was made. */
  readonly stored: number
  /** How many the writer had committed. */
  readonly committed: number
  /** Messages that were refused, and are kept. */
  readonly quarantined: number
  /** The newest value of each metric of each device, as JSON text. */
  readonly newest: Readonly<Record<string, Readonly<Record<string, string>>>>
}

export function writeKnown(name: string, known: KnownDirectory): void {
  // One reading a line: such a file can be read, and compared.
  const { acknowledged, ...rest } = known
  const lines = acknowledged.map(reading => JSON.stringify(reading)).join(',\n')
  const head = JSON.stringify(rest, null, 1).slice(0, -2)
  writeFileSync(`${FOLDER}/${name}.json`, `${head},\n "acknowledged": [\n${lines}\n]}\n`)
}

export function readKnown(name: string): KnownDirectory {
  return JSON.parse(readFileSync(`${FOLDER}/${name}.json`, 'utf8')) as KnownDirectory
}

/** Packs what is in `dir`; returns the bytes that the pack takes. */
export function pack(name: string, dir: string): number {
  const plain = ['--sparse', '--sort=name', '--owner=0', '--group=0', '--numeric-owner', '-C', dir, '-cf', '-', '.']
  const tar = execFileSync('tar', plain, { maxBuffer: TAR_BYTES_MAX })
  const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24 }
  const packed = brotliCompressSync(tar, { params })
  writeFileSync(`${FOLDER}/${name}.tar.br`, packed)
  return packed.length
}

/** Into a folder that is made for it. */
export function unpack(name: string, into: string): void {
  mkdirSync(into, { recursive: true })
  const tar = brotliDecompressSync(readFileSync(`${FOLDER}/${name}.tar.br`))
  execFileSync('tar', ['-C', into, '-xf', '-'], { input: tar })
}

/** The build of an older version, to be run with today's packages; resolves to its `dist`. */
export function unpackBuild(name: string, into: string): string {
  unpack(name, into)
  symlinkSync(resolve('node_modules'), join(into, 'node_modules'))
  return join(into, 'dist')
}

/** How far the writer of a directory was. Looks and touches nothing. */
export async function readPosition(
  dataDir: string,
): Promise<{ appended: number; committed: number; hasPlan: boolean }> {
  const bounds = { keepHours: 72, bytesMax: 2 ** 30, quarantineBytesMax: 2 ** 20 }
  const view = await openView({ kind: 'directory', dir: join(dataDir, 'log'), ...bounds }, pino({ level: 'silent' }))
  const { partitions } = await view.books().finally(() => view.close())
  const [partition] = partitions
  if (partition === undefined || partitions.length > 1) throw new Error('A log on a disk has one partition.')
  const { readingsAppended: appended, readingsCommitted: committed, plan } = partition
  return { appended, committed, hasPlan: plan !== null }
}
