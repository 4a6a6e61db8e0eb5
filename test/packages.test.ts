/** What is installed: each package is the very one that was locked, and none runs a script of its own. */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { freePorts, startSystem } from './crash/system.ts'
import { sql } from './journeys/observed.ts'
import { npmCache, npmCacheHere } from './servers/npm-cache.ts'

interface Locked {
  readonly version: string
  readonly resolved?: string
  readonly integrity?: string
  readonly link?: true
  readonly hasInstallScript?: true
}

const { packages } = JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Record<string, Locked> }
const locked = Object.entries(packages).filter(([path, { link }]) => path !== '' && link !== true)

/**
 * The engine for platforms that the registry of those who build this does not serve, so that nobody here could compute it.
 * Whoever can: `npm view <name>@<version> dist.integrity`, into the lockfile, and out of this list.
 */
const INTEGRITY_UNKNOWN = [
  'node_modules/@chdb/lib-darwin-arm64',
  'node_modules/@chdb/lib-darwin-x64',
  'node_modules/@chdb/lib-linux-arm64-gnu',
]

/** Why each works without its script. */
const SCRIPTS: Readonly<Record<string, string>> = {
  'node_modules/chdb': 'its script does nothing; the engine comes prebuilt in @chdb/lib-*',
  'node_modules/koffi': 'it comes prebuilt; its script looks whether it must be built',
  'node_modules/lmdb': 'it comes prebuilt in @lmdb/lmdb-*; its script looks whether it must be built',
  'node_modules/msgpackr-extract': 'lmdb uses it where it is there; no value of ours goes through it',
}

describe('the lockfile', () => {
  it('has the integrity of every package, but of the three engines that are named here', () => {
    const without = locked.filter(([, { integrity }]) => !/^sha512-[A-Za-z0-9+/]{86}==$/.test(integrity ?? ''))
    expect(without.map(([path]) => path).toSorted()).toEqual(INTEGRITY_UNKNOWN)
  })

  it('names no registry but the public one: whoever installs may have a mirror of it', () => {
    const elsewhere = locked.filter(([, { resolved }]) => !(resolved ?? PUBLIC).startsWith(PUBLIC))
    expect(elsewhere.map(([path]) => path)).toEqual([])
    expect(readFileSync('package-lock.json', 'utf8')).not.toMatch(/"(git|file|http):|git\+/)
  })
})

const PUBLIC = 'https://registry.npmjs.org/'

describe('no package needs a script of its own', () => {
  it('and those that have one are known, with the reason', () => {
    const unknown = locked.filter(([path, { hasInstallScript }]) => hasInstallScript && SCRIPTS[path] === undefined)
    expect(unknown.map(([path]) => path)).toEqual([])
  })

  it('so that the two commands of the README run none', () => {
    expect(readFileSync('.npmrc', 'utf8')).toMatch(/^ignore-scripts=true$/m)
    const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }
    // npm leaves out what would run before and after, too.
    expect(Object.keys(scripts).filter(name => /^(pre|post|install|prepare)/.test(name))).toEqual([])
  })

  it('and nothing was built here', () => {
    const built = Object.keys(SCRIPTS).filter(path => existsSync(join(path, 'build/Release')))
    expect(built).toEqual([])
  })
})

describe.runIf(npmCacheHere)('what `npm ci --ignore-scripts` installs', () => {
  it('is all that koffi, lmdb and the engine need: the whole system starts on it', async () => {
    const tree = mkdtempSync(join(tmpdir(), 'surgetank-installed-'))
    try {
      for (const name of ['package.json', 'package-lock.json', 'dist', 'database/schema'])
        cpSync(name, join(tree, name), { recursive: true })
      const words = [
        'ci',
        '--ignore-scripts',
        '--offline',
        '--omit=dev',
        '--cache',
        npmCache,
        '--no-audit',
        '--no-fund',
      ]
      execFileSync('npm', words, { cwd: tree, stdio: ['ignore', 'ignore', 'pipe'] })
      const system = { dataDir: join(tree, 'data'), ports: await freePorts(), dist: join(tree, 'dist') }
      const running = await startSystem(system)
      try {
        expect(await sql(running.ports, 'SELECT count() FROM telemetry.readings')).toEqual([[0]])
        expect(readFileSync(`/proc/${running.child('database')}/maps`, 'utf8')).toContain(`${tree}/node_modules/@chdb/`)
      } finally {
        expect(await running.stop()).toBe(0)
      }
    } finally {
      rmSync(tree, { recursive: true, force: true })
    }
  })
})
