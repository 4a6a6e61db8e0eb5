/** The lines of a process, when they are read and when they are not. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, it } from 'vitest'

const BYTES_MAX = 1 << 20

it('all of them are there after its end, the last one too', async () => {
  // As many as a pipe holds.
  const child = start({ lines: 100, waitMs: 0 })
  let text = ''
  child.stderr.setEncoding('utf8').on('data', chunk => (text += chunk))
  expect(await once(child, 'close')).toEqual([0, null])
  const lines = text.trim().split('\n')
  expect(lines).toHaveLength(101)
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ part: 'test', msg: 'the last one' })
})

it('nobody reads them: it goes on, and ends all the same [G5]', async () => {
  const child = start({ lines: 20_000, waitMs: 0 })
  expect(await once(child, 'exit')).toEqual([null, 'SIGKILL'])
  child.stderr.destroy()
})

it('they come faster than they are read: about a megabyte is kept [G5]', async () => {
  const child = start({ lines: 20_000, waitMs: 5_000 })
  let text = ''
  child.stderr.setEncoding('utf8').on('data', chunk => (text += chunk))
  await once(child, 'close')
  expect(text.length).toBeGreaterThan(BYTES_MAX / 2)
  expect(text.length).toBeLessThan(2 * BYTES_MAX)
})

function start({ lines, waitMs }: { readonly lines: number; readonly waitMs: number }) {
  const args = ['dist/test/manager/log-lines.js', String(lines), String(waitMs)]
  return spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] })
}
