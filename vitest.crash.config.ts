import { defineConfig } from 'vitest/config'

/** `npm run test:crash`: all rounds of SIGKILL under load and the planted bugs; minutes, one at a time. */
export default defineConfig({
  test: {
    include: ['test/crash/rounds.test.ts'],
    globalSetup: 'test/servers/setup.ts',
    testTimeout: 20 * 60_000,
    hookTimeout: 60_000,
    maxWorkers: 1,
    reporters: ['default'],
  },
})
