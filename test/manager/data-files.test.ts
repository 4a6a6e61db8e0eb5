/** The modes of a data directory, corrected and looked at: what is closed, what is left, and what is never touched. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { checkDataFiles, closeDataFiles } from '../../manager/data-files.ts'
import { examineDataFiles } from '../../manager/doctor.ts'

const USER = process.geteuid?.() ?? null
const ALL = { correct: true, owner: USER, seenMax: 1_000, atOnceMsMax: 1_000 }
let [root, dir] = ['', '']

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'surgetank-files-'))
  dir = join(root, 'data')
  makeFolder(dir, 0o755)
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

describe('what is open to others', () => {
  it('is closed, whatever its mode was: folders 0700, files 0600', async () => {
    makeFolder(join(dir, 'log'), 0o777)
    makeFolder(join(dir, 'log/deep'), 0o750)
    makeFile(join(dir, 'log/deep/a'), 0o666)
    makeFile(join(dir, 'log/deep/b'), 0o755)
    makeFile(join(dir, 'c'), 0o604)
    makeFile(join(dir, 'closed'), 0o600)
    expect(await checkDataFiles(dir, ALL)).toEqual({ seen: 7, corrected: 6, exposed: 0, first: null, whole: true })
    for (const folder of ['', 'log', 'log/deep']) expect(modeOf(join(dir, folder))).toBe(0o700)
    for (const file of ['log/deep/a', 'log/deep/b', 'c', 'closed']) expect(modeOf(join(dir, file))).toBe(0o600)
  })

  it('is only looked at where nothing is to be corrected', async () => {
    makeFile(join(dir, 'a'), 0o644)
    const report = await checkDataFiles(dir, { ...ALL, correct: false })
    expect(report).toMatchObject({ corrected: 0, exposed: 2, first: { path: dir, why: null } })
    expect([modeOf(dir), modeOf(join(dir, 'a'))]).toEqual([0o755, 0o644])
  })

  it('keeps what its owner may not do', async () => {
    makeFile(join(dir, 'a'), 0o400)
    await checkDataFiles(dir, ALL)
    expect(modeOf(join(dir, 'a'))).toBe(0o400)
  })

  it('is closed as a socket, too', async () => {
    const server = createServer()
    await new Promise<void>(resolve => server.listen(join(dir, 'socket'), resolve))
    chmodSync(join(dir, 'socket'), 0o777)
    await checkDataFiles(dir, ALL)
    expect(modeOf(join(dir, 'socket'))).toBe(0o600)
    server.close()
  })
})

describe('a link', () => {
  it('is never followed, to a file or to a folder, at any depth', async () => {
    const outside = join(root, 'outside')
    makeFolder(outside, 0o755)
    makeFile(join(outside, 'file'), 0o644)
    makeFolder(join(dir, 'deep'), 0o755)
    for (const [name, target] of [
      ['deep/to-file', join(outside, 'file')],
      ['deep/to-folder', outside],
      ['deep/to-nothing', join(root, 'nothing')],
      ['deep/to-itself', join(dir, 'deep/to-itself')],
      ['to-parent', root],
    ] as const) {
      symlinkSync(target, join(dir, name))
    }
    chmodSync(root, 0o755)
    const report = await checkDataFiles(dir, ALL)
    expect([modeOf(root), modeOf(outside), modeOf(join(outside, 'file'))]).toEqual([0o755, 0o755, 0o644])
    // One that an operator made in the directory itself is told.
    expect(report).toMatchObject({ corrected: 2, exposed: 1, first: { path: join(dir, 'to-parent') } })
  })

  it('that is the data directory itself leads to it, as a service manager makes it', async () => {
    symlinkSync(dir, join(root, 'link'))
    makeFile(join(dir, 'a'), 0o644)
    expect(await checkDataFiles(join(root, 'link'), ALL)).toMatchObject({ corrected: 2, exposed: 0 })
    expect([modeOf(dir), modeOf(join(dir, 'a'))]).toEqual([0o700, 0o600])
  })
})

describe('a look', () => {
  it('closes the directory itself even when it is ended before it looks at anything else', async () => {
    makeFile(join(dir, 'a'), 0o644)
    const report = await checkDataFiles(dir, { ...ALL, signal: AbortSignal.abort() })
    expect(report).toMatchObject({ seen: 1, corrected: 1, whole: false })
    expect(modeOf(dir)).toBe(0o700)
  })

  it('ends at its bound', async () => {
    for (let at = 0; at < 200; at++) makeFile(join(dir, String(at)), 0o644)
    const report = await checkDataFiles(dir, { ...ALL, correct: false, seenMax: 100 })
    expect(report.whole).toBe(false)
    expect(report.seen).toBeLessThan(150)
  })

  it('goes on after what cannot be looked at, and tells it', async () => {
    makeFile(join(dir, 'a'), 0o644)
    // So deep that no path leads there.
    const name = 'd'.repeat(250)
    const deep = `for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do mkdir ${name} && cd -P ${name} || exit; done`
    execFileSync('sh', ['-c', deep], { cwd: dir })
    makeFile(join(dir, 'z'), 0o644)
    const report = await checkDataFiles(dir, ALL)
    expect([modeOf(join(dir, 'a')), modeOf(join(dir, 'z'))]).toEqual([0o600, 0o600])
    expect(report).toMatchObject({ exposed: 1, first: { why: 'it cannot be looked at: ENAMETOOLONG' }, whole: true })
    execFileSync('rm', ['-rf', dir])
  })

  it('takes it well that files vanish and come meanwhile, also where it goes slowly', async () => {
    for (let at = 0; at < 50; at++) {
      makeFolder(join(dir, `${at}`), 0o755)
      for (let file = 0; file < 40; file++) makeFile(join(dir, `${at}/${file}`), 0o644)
    }
    const looking = checkDataFiles(dir, { ...ALL, seenMax: Number.POSITIVE_INFINITY, atOnceMsMax: 0 })
    for (let at = 0; at < 50; at++) {
      await new Promise(setImmediate)
      rmSync(join(dir, `${at}`), { recursive: true })
    }
    expect(await looking).toMatchObject({ exposed: 0, whole: true })
  })

  it('at a directory that is not there, or that is a file, tells nothing', async () => {
    makeFile(join(root, 'file'), 0o600)
    expect(await checkDataFiles(join(root, 'none'), ALL)).toMatchObject({ seen: 0, exposed: 0 })
    await closeDataFiles(join(root, 'file/data'), pino({ level: 'silent' }), new AbortController().signal)
  })
})

describe('doctor', () => {
  it('finds what is open to others, changes nothing, and says what to do', async () => {
    makeFile(join(dir, 'a'), 0o644)
    const [finding] = await examineDataFiles(dir, null)
    expect(finding).toMatchObject({
      what: 'data files',
      found: `open to others: 2 of 2, such as ${dir}`,
      verdict: 'warn',
    })
    expect(finding?.advice).toContain(`chmod -R go= ${dir}`)
    expect(modeOf(dir)).toBe(0o755)
    await checkDataFiles(dir, ALL)
    expect(await examineDataFiles(dir, null)).toEqual([
      { what: 'data files', found: 'open to its user only', verdict: 'ok' },
    ])
    expect(await examineDataFiles(join(dir, 'none'), null)).toEqual([])
  })

  it('quotes the directory for the shell that a superuser copies it to', async () => {
    const odd = join(root, "my data; $(it's)")
    makeFolder(odd, 0o755)
    const [finding] = await examineDataFiles(odd, null)
    const [, words = ''] = /chmod -R go= (.*)$/.exec(finding?.advice ?? '') ?? []
    expect(execFileSync('sh', ['-c', `printf %s ${words}`], { encoding: 'utf8' })).toBe(odd)
  })

  it('compares with the user that surgetank runs as, whoever asks', async () => {
    chmodSync(dir, 0o700)
    const running = { pid: 1, startedAt: '', ports: null, socketFolder: null, walls: null }
    expect(await examineDataFiles(dir, { ...running, user: USER })).toMatchObject([{ verdict: 'ok' }])
    expect(await examineDataFiles(dir, { ...running, user: null })).toMatchObject([{ verdict: 'ok' }])
    const [finding] = await examineDataFiles(dir, { ...running, user: 61_184 })
    expect(finding).toMatchObject({ verdict: 'warn', found: expect.stringContaining(`it belongs to user ${USER}`) })
    expect(finding?.advice).toContain(`chown -R 61184 ${dir} `)
  })
})

function makeFolder(path: string, mode: number): void {
  mkdirSync(path)
  chmodSync(path, mode)
}

function makeFile(path: string, mode: number): void {
  writeFileSync(path, '')
  chmodSync(path, mode)
}

function modeOf(path: string): number {
  return statSync(path).mode & 0o7777
}
