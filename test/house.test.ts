/** The few rules of the house that matter, as a test: doors, the direction of imports, promises, pages that must not be stale. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ERRORS } from '../errors.ts'
import { SETTINGS, settingsPage } from '../settings.ts'

/** Each folder may import from those before it, as the data flows. */
const ORDER = [
  ['model'],
  ['space', 'pump', 'database', 'sessions'],
  ['ingest', 'writers', 'readers', 'api'],
  ['broker'],
  ['manager', 'simulate', 'bench'],
]
const PARTS = ORDER.flat()
const LINES_MAX = 400

const sources = PARTS.flatMap(part => filesUnder(part, '.ts'))
const roots = [
  'main.ts',
  'settings.ts',
  'shown-text.ts',
  'stop-child.ts',
  'setting-kinds.ts',
  'errors.ts',
  'http-host.ts',
  'metrics.ts',
  'version.ts',
  'within.ts',
  'parent.ts',
  'private-files.ts',
]

describe('the house', () => {
  it('has its parts as folders, and no drawer for the rest', () => {
    const folders = readdirSync('.', { withFileTypes: true })
      .filter(
        entry =>
          entry.isDirectory() && !['node_modules', 'dist', 'data'].includes(entry.name) && !entry.name.startsWith('.'),
      )
      .map(entry => entry.name)
    expect(folders.sort()).toEqual([...PARTS, 'docs', 'test'].sort())
  })

  it('imports one way, as the data flows', () => {
    const wrong = sources.flatMap(file =>
      importsOf(file)
        .filter(target => rank(target) > rank(file))
        .map(target => `${file} → ${target}`),
    )
    expect(wrong).toEqual([])
  })

  it('opens a folder of another part by its door or by its one `open…` file, which only manager/ picks', () => {
    const doors = new Set(PARTS.map(part => `${part}/${part}.ts`))
    const open = new Set(['database/row-binary.ts', 'pump/lmdb-env.ts', 'pump/sealed.ts'])
    const wrong = sources
      .filter(file => !['manager', 'bench'].includes(partOf(file)))
      .flatMap(file =>
        importsOf(file)
          .filter(
            target => PARTS.includes(partOf(target)) && partOf(target) !== partOf(file) && partOf(target) !== 'model',
          )
          .filter(target => !doors.has(target) && !open.has(target))
          .map(target => `${file} → ${target}`),
      )
    expect(wrong).toEqual([])
  })

  it('keeps files short enough to read', () => {
    const long = [...sources, ...roots].filter(file => readFileSync(file, 'utf8').split('\n').length > LINES_MAX)
    expect(long).toEqual([])
  })

  it('reads the environment in settings.ts only, through the two processes that start', () => {
    const readers = [...sources, ...roots].filter(file => /process\.env\b/.test(readFileSync(file, 'utf8')))
    const allowed = ['main.ts', 'settings.ts']
    expect(
      readers.filter(file => !allowed.includes(file) && !file.startsWith('bench/') && !file.startsWith('simulate/')),
    ).toEqual([])
  })

  it('has each promise in the guarantees, in the source that keeps it and in a test that proves it', () => {
    const guarantees = readFileSync('docs/GUARANTEES.md', 'utf8')
    const inSource = [...sources, ...roots].map(file => readFileSync(file, 'utf8')).join('\n')
    const inTests = filesUnder('test', '.ts')
      .filter(file => file !== 'test/house.test.ts')
      .map(file => readFileSync(file, 'utf8'))
      .join('\n')
    for (const promise of ['[G1]', '[G2]', '[G3]', '[G4]', '[G5]', '[G6]', '[G7]']) {
      expect(guarantees, `${promise} in docs/GUARANTEES.md`).toContain(promise)
      expect(inSource, `${promise} in a source`).toContain(promise)
      expect(inTests, `${promise} in a test`).toContain(promise)
    }
  })

  it('has no stale page of settings', () => {
    expect(readFileSync('docs/SETTINGS.md', 'utf8')).toBe(settingsPage())
  })

  it('uses each error of the catalogue, and each setting', () => {
    const used = [...sources, ...roots]
      .filter(file => file !== 'errors.ts')
      .map(file => readFileSync(file, 'utf8'))
      .join('\n')
    expect(Object.keys(ERRORS).filter(code => !used.includes(`'${code}'`))).toEqual([])
    const outside = [...sources, 'main.ts'].map(file => readFileSync(file, 'utf8')).join('\n')
    expect(Object.keys(SETTINGS).filter(name => !outside.includes(name))).toEqual([])
  })

  it('keeps what each process makes to its own user, from its first statement on', () => {
    const entries = [...sources.filter(file => !file.startsWith('bench/')), ...roots].filter(file =>
      /^#!|process\.(on|once)\('message'/m.test(readFileSync(file, 'utf8')),
    )
    expect(entries).toContain('main.ts')
    const open = entries.filter(file => !/^keepFilesPrivate\(\)$/m.test(readFileSync(file, 'utf8')))
    expect(open).toEqual([])
  })

  it('leaves nothing for later on main', () => {
    const marked = [...sources, ...roots].filter(file => /\b(TODO|FIXME|XXX)\b/.test(readFileSync(file, 'utf8')))
    expect(marked).toEqual([])
  })
})

function filesUnder(folder: string, ending: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith(ending))
    .map(name => join(folder, name))
}

/** Paths from the root of what a file imports from us. */
function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  return [...text.matchAll(/from '(\.{1,2}\/[^']+)'/g)].map(([, target]) =>
    normalize(join(dirname(file), target ?? '')),
  )
}

function partOf(file: string): string {
  return file.split('/')[0] ?? ''
}

function rank(file: string): number {
  return ORDER.findIndex(parts => parts.includes(partOf(file)))
}
