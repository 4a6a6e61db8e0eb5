/** The command line as a shell uses it. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readMigrations } from '../database/migrate.ts'
import { freePort } from './free-port.ts'
import { until } from './waits.ts'

let dir: string

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'surgetank-main-'))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

describe('a command whose reader has left, such as `head`', () => {
  it.each([
    ['finds nothing wrong', '127.0.0.1', 0],
    ['finds what stops a start', '192.0.2.1', 1],
  ])('ends without a word and with its own exit code when it %s', async (_, listen, code) => {
    const ports = { SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
    const address = { SURGETANK_LISTEN: listen, SURGETANK_UNAUTHENTICATED: 'allow' }
    const env = { SURGETANK_DATA_DIR: dir, ...ports, ...address }
    const child = spawn(process.execPath, ['dist/main.js', 'doctor'], { env })
    child.stdout.destroy()
    let said = ''
    child.stderr.on('data', text => (said += text))
    expect(await once(child, 'close')).toEqual([code, null])
    expect(said).toBe('')
  })
})

describe('which build it is', () => {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  const commit = readFileSync('dist/commit.txt', 'utf8').trim()
  const schema = readMigrations().at(-1)?.version

  it('is said by --version: the version, and the commit that the build wrote', () => {
    expect(commit).toMatch(/^([0-9a-f]{7,40}(-dirty)?|unknown)$/)
    expect(said('dist', '--version')).toBe(`${version} (${commit})\n`)
  })

  it('is unknown where the build wrote nothing', () => {
    const copy = join(dir, 'without-a-commit')
    cpSync('dist', join(copy, 'dist'), { recursive: true, filter: path => !path.endsWith('commit.txt') })
    for (const place of ['package.json', 'database']) cpSync(place, join(copy, place), { recursive: true })
    symlinkSync(resolve('node_modules'), join(copy, 'node_modules'))
    expect(said(join(copy, 'dist'), '--version')).toBe(`${version} (unknown)\n`)
  })

  it('is told to the build where there is no git, and never taken from a repository around the sources', () => {
    const folder = join(dir, 'outer/unpacked')
    mkdirSync(join(folder, '.ci'), { recursive: true })
    execFileSync('git', ['init', '--quiet', join(dir, 'outer')])
    cpSync('.ci/commit', join(folder, '.ci/commit'))
    const commitOf = (env: Record<string, string>) =>
      execFileSync(join(folder, '.ci/commit'), { env: { PATH: process.env.PATH, ...env }, encoding: 'utf8' })
    expect(commitOf({})).toBe('unknown\n')
    expect(commitOf({ SURGETANK_COMMIT: '0123abc' })).toBe('0123abc\n')
  })

  it('is in the first line of the log, in the index, /readyz and /metrics, also while it waits for its servers', async () => {
    const port = await freePort()
    const nobody = await freePort()
    const env = {
      SURGETANK_HTTP_PORT: String(port),
      KAFKA_BROKERS: `127.0.0.1:${nobody}`,
      REDIS_URL: `redis://127.0.0.1:${nobody}`,
    }
    const child = spawn(process.execPath, ['dist/main.js', 'broker'], { env })
    let log = ''
    child.stderr.setEncoding('utf8').on('data', text => (log += text))
    const ask = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).text()
    try {
      await until(
        () =>
          ask('/healthz').then(
            () => true,
            () => false,
          ),
        'it answers',
      )
      const build = `${version} (${commit})`
      expect(JSON.parse(await ask('/'))).toMatchObject({ version: build })
      expect(JSON.parse(await ask('/readyz'))).toMatchObject({ version: build })
      const labels = `version="${version}",commit="${commit}",schema="${schema}"`
      expect(await ask('/metrics')).toContain(`telemetry_build_info{${labels}} 1`)
      await until(() => log.includes('\n'), 'its first line is read')
      expect(JSON.parse(log.split('\n')[0] ?? '')).toMatchObject({ part: 'broker', version, commit, schema })
    } finally {
      child.kill('SIGKILL')
    }
  })

  it('is the first thing that doctor says', () => {
    const env = { SURGETANK_DATA_DIR: dir, SURGETANK_MQTT_PORT: '0', SURGETANK_HTTP_PORT: '0', SURGETANK_SQL_PORT: '0' }
    const [first] = JSON.parse(said('dist', 'doctor', ['--json'], env)) as { found: string }[]
    expect(first).toMatchObject({ what: 'surgetank', found: `${version} (${commit}), schema version ${schema}` })
  })

  function said(dist: string, command: string, more: readonly string[] = [], env: Record<string, string> = {}): string {
    return execFileSync(process.execPath, [join(dist, 'main.js'), command, ...more], { env, encoding: 'utf8' })
  }
})
