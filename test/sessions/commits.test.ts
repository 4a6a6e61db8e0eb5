/** Many writes to a commit: in which order, and what becomes of those that fail. */
import { expect, onTestFinished, test } from 'vitest'
import { type Commits, openCommits } from '../../sessions/commits.ts'
import { newRecord } from '../../sessions/record.ts'
import { openStored } from '../../sessions/stored-session.ts'
import { until } from '../waits.ts'

interface Disk {
  readonly commits: Commits<string>
  readonly written: string[][]
  /** What each commit waits for. */
  gate: Promise<void>
}

/** A disk that is asked to write, and does what the test says. */
function openDisk(atOnce = 100): Disk {
  const written: string[][] = []
  const disk: Disk = {
    written,
    gate: Promise.resolve(),
    commits: openCommits<string>({
      atOnce,
      write: async puts => {
        await disk.gate
        written.push(puts.map(([name, value]) => `${name}=${value}`))
      },
    }),
  }
  onTestFinished(() => disk.commits.close())
  return disk
}

test('what is asked while a commit is under way shares the next, the last under a name alone', async () => {
  const disk = openDisk()
  const done = ['a', 'b', 'a'].map((name, at) => disk.commits.put(name, () => String(at)))
  await done[0]
  expect(disk.written).toEqual([['a=2', 'b=1']])
})

test('a commit takes no more than it may, and nobody is passed over', async () => {
  const disk = openDisk(3)
  await Promise.all(Array.from({ length: 10 }, (_, at) => disk.commits.put(`n${at}`, () => '')))
  expect(disk.written.map(puts => puts.length)).toEqual([3, 3, 3, 1])
})

test('a write that failed is told to whoever waits, and made again only when that was asked for', async () => {
  const disk = openDisk()
  disk.gate = failing()
  disk.commits.putSoon('soon', () => 'kept')
  const refused = disk.commits.put('once', () => 'lost')
  const again = disk.commits.put('again', () => 'kept', true)
  await expect(refused).rejects.toMatchObject({ code: 'sessions_unavailable', fate: 'retry' })
  await expect(again).rejects.toMatchObject({ code: 'sessions_unavailable' })
  expect(disk.commits.healthy).toBe(false)
  disk.gate = Promise.resolve()
  await until(() => disk.written.length > 0)
  expect(disk.written.flat().sort()).toEqual(['again=kept', 'soon=kept'])
  expect(disk.commits.healthy).toBe(true)
})

test('a disk that hangs is not waited for', async () => {
  const disk = openDisk()
  let release = () => {}
  disk.gate = new Promise(resolve => {
    release = resolve
  })
  await expect(disk.commits.put('a', () => '1')).rejects.toMatchObject({ code: 'sessions_unavailable' })
  expect(disk.commits.healthy).toBe(false)
  release()
  await until(() => disk.commits.healthy)
  expect(disk.written).toEqual([['a=1']])
})

test('a save that was refused is taken back, and takes nothing with it that was not', async () => {
  const disk = openDisk()
  const isHolder = () => true
  const from = newRecord()
  const { session, text } = openStored({
    from,
    isPresent: false,
    isHolder,
    checkRoom: () => {},
    save: () => disk.commits.put('a', text),
    saveSoon: () => disk.commits.putSoon('a', text),
    leave: async () => {},
  })
  let release = () => {}
  disk.gate = new Promise(resolve => {
    release = resolve
  })
  const first = session.save({ ...session.record, opened: 1 })
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
  const second = session.save({ ...session.record, opened: 2 })
  release()
  disk.gate = failing()
  expect(await first).toBe(true)
  await expect(second).rejects.toMatchObject({ code: 'sessions_unavailable' })
  expect(session.record.opened).toBe(1)
  const third = session.save({ ...session.record, opened: 3 })
  session.saveSoon({ ...session.record, filters: [] })
  await expect(third).rejects.toMatchObject({ code: 'sessions_unavailable' })
  disk.gate = Promise.resolve()
  await until(() => disk.written.length > 1)
  expect(session.record.opened).toBe(3)
})

function failing(): Promise<never> {
  const rejected = Promise.reject(new Error('no'))
  rejected.catch(() => {})
  return rejected
}
