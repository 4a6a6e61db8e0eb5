/** Where the engine's sockets are: beside its files where that can be, else under the folder for temporary files. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startEmbeddedDatabase } from '../../database/embedded/embedded-database.ts'
import { listenOnSocket, openSocketPlace, removeTemporary } from '../../database/embedded/sockets.ts'
import { anotherUserHere } from '../servers/another-user.ts'

const ANOTHER_USER = 65_534
const LONG = 'long-'.repeat(20)
let [root, near, temporary] = ['', '', '']

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'surgetank-place-'))
  near = join(root, 'data/sockets')
  temporary = join(root, 'tmp')
  mkdirSync(dirname(near))
  mkdirSync(temporary)
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

describe('the folder of the sockets', () => {
  it('is beside the files of the engine, closed to others, and stays there', async () => {
    mkdirSync(near)
    chmodSync(near, 0o777)
    const place = await open()
    expect(place.sockets).toEqual({ own: join(near, 'own.sock'), analysts: join(near, 'analysts.sock') })
    expect(modeOf(near)).toBe(0o700)
    expect(readdirSync(near)).toEqual([])
    place.close()
    expect(existsSync(near)).toBe(true)
    expect(readdirSync(temporary)).toEqual([])
  })

  const BAD: readonly (readonly [string, boolean, () => unknown])[] = [
    ['a file', true, () => writeFileSync(near, '')],
    ['a link, also to a folder of its own', true, () => symlinkSync(temporary, near)],
    ['too long a path', true, () => join(root, LONG)],
    [
      'below a file',
      true,
      () => {
        writeFileSync(join(root, 'file'), '')
        return join(root, 'file')
      },
    ],
    [
      'of another user',
      anotherUserHere,
      () => {
        mkdirSync(near)
        chownSync(near, ANOTHER_USER, ANOTHER_USER)
      },
    ],
  ]
  it.each(BAD.filter(([, here]) => here))('that would be %s is a temporary one', async (_what, _here, make) => {
    const made = make()
    const dataDir = typeof made === 'string' ? made : dirname(near)
    const place = await open(dataDir)
    expect(dirname(place.folder)).toBe(temporary)
    expect(modeOf(place.folder)).toBe(0o700)
    expect(dirname(place.sockets.analysts)).toBe(place.folder)
    const other = await open(dataDir)
    expect(other.folder).not.toBe(place.folder)
    other.close()
    place.close()
    expect(readdirSync(temporary)).toEqual([])
  })

  it('is in the next place where the first takes none', async () => {
    const place = await openSocketPlace(join(root, LONG), [join(root, 'none'), `/tmp/${LONG}`, temporary])
    expect(dirname(place.folder)).toBe(temporary)
    place.close()
  })

  it('that can be nowhere is told with each place, why, and what to do', async () => {
    const none = join(root, 'none')
    const opening = openSocketPlace(join(root, LONG), [none, `/tmp/${LONG}`])
    await expect(opening).rejects.toMatchObject({ code: 'no_socket_place', fate: 'stop' })
    const { detail } = await opening.catch(error => error)
    expect(detail).toContain(`${join(root, LONG)}/sockets: its path is too long; ${none}: ENOENT`)
    expect(detail).toMatch(/long-: its path is too long\. Set TMPDIR to /)
  })
})

it('an engine starts, answers and starts again on a folder for temporary files, at the same sockets', async () => {
  writeFileSync(near, '')
  const { folder: socketFolder, sockets, close } = await open()
  for (let start = 0; start < 2; start++) {
    const engine = await startEmbeddedDatabase({ dataDir: dirname(near), socketFolder })
    expect(engine.sockets).toEqual(sockets)
    expect(lstatSync(sockets.own).isSocket()).toBe(true)
    if (start === 0) {
      await engine.stop()
      // As what clears old files away does.
      rmSync(socketFolder, { recursive: true })
    } else await engine.stop()
  }
  close()
  expect(readdirSync(temporary)).toEqual([])
})

describe('what a killed process left is removed', () => {
  it('with its two sockets', async () => {
    const folder = await left()
    removeTemporary(folder)
    expect(readdirSync(temporary)).toEqual([])
    removeTemporary(folder)
  })

  it.each<[string, (folder: string) => unknown]>([
    ['that is beside the engine', () => near],
    ['of another name', () => temporary],
    ['that holds anything else', folder => writeFileSync(join(folder, 'a'), '')],
    ['that others may enter', folder => chmodSync(folder, 0o755)],
    [
      'that is a link',
      folder => {
        const link = join(temporary, 'surgetank-sockets-abcdef')
        symlinkSync(folder, link)
        return link
      },
    ],
    [
      'that holds a file of the name of a socket',
      folder => {
        rmSync(join(folder, 'own.sock'))
        writeFileSync(join(folder, 'own.sock'), '')
      },
    ],
  ])('but no folder %s', async (_what, change) => {
    mkdirSync(near)
    const folder = await left()
    const changed = change(folder)
    const path = typeof changed === 'string' ? changed : folder
    const before = readdirSync(folder)
    removeTemporary(path)
    expect(readdirSync(folder)).toEqual(before)
    expect(existsSync(path)).toBe(true)
  })
})

/** A temporary folder as a process leaves it that is killed. */
async function left(): Promise<string> {
  const { folder, sockets } = await openSocketPlace(join(root, LONG), [temporary])
  for (const path of Object.values(sockets)) {
    const server = createServer()
    const aside = `${path}.aside`
    await listenOnSocket(server, aside)
    // The server removes the name that it knows.
    renameSync(aside, path)
    await new Promise(done => server.close(done))
  }
  expect(readdirSync(folder).toSorted()).toEqual(['analysts.sock', 'own.sock'])
  return folder
}

function open(dataDir = dirname(near)) {
  return openSocketPlace(dataDir, [temporary])
}

function modeOf(path: string): number {
  return lstatSync(path).mode & 0o777
}
