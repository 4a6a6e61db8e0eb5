/** The pump on this disk: the contract of every pump. What only LMDB must show is in the files beside this one. */
import { pumpContract } from '../contracts/pump-contract.ts'
import { openLmdbHarness } from './lmdb-harness.ts'

pumpContract('The log on this disk', openLmdbHarness, { exact: true })
