/** What clients of every kind do, byte by byte, to one Surgetank as `npm start` runs it. */
import { afterAll, beforeAll } from 'vitest'
import { type Endpoint, openOneBroker } from './endpoint.ts'
import { describeHabits } from './habits.ts'
import { describeMustClose } from './must-close.ts'
import { describeSessions } from './sessions-kept.ts'

let endpoint: Endpoint
beforeAll(async () => {
  endpoint = await openOneBroker()
})
afterAll(() => endpoint.close())

describeMustClose(() => endpoint)
describeHabits(() => endpoint, 1)
describeSessions(() => endpoint)
