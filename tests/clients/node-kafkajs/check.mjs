// Reports checks as the other clients do: `ok name` or `FAIL name: why`. Knows nothing of KafkaJS.

import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'

const CHECK_MS_MAX = 45_000
const STEP_MS_MAX = 20_000

export const unique = (prefix) => `${prefix}-${randomUUID().slice(0, 13)}`

export function expect(what, actual, expected) {
  assert.deepEqual(actual, expected, `${what} is ${JSON.stringify(actual)}, expected ${JSON.stringify(expected)}`)
}

/** Waits until `probe` gives something true. */
export async function eventually(what, probe) {
  const deadline = Date.now() + STEP_MS_MAX
  while (!(await probe())) {
    if (Date.now() > deadline) throw new Error(`${what}: not within ${STEP_MS_MAX} ms`)
    await new Promise((next) => setTimeout(next, 20))
  }
}

export const ADD_PARTITIONS_TO_TXN = 24

class NotServed extends Error {}

/** Leaves the check out, and says so, when the broker does not serve this API. */
export function needsApi(key) {
  if (!process.env.SERVED_APIS.split(' ').includes(String(key))) throw new NotServed()
}

export class Checks {
  #checks = []

  add(name, run) {
    this.#checks.push({ name, run })
  }

  /** Runs all, or those whose names contain CHECK from the environment; the process ends with the verdict. */
  async run() {
    let failed = false
    for (const { name, run } of this.#checks.filter((check) => check.name.includes(process.env.CHECK ?? ''))) {
      let timer
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('not done in time')), CHECK_MS_MAX)
      })
      try {
        await Promise.race([run(), late])
        console.log(`ok ${name}`)
      } catch (error) {
        if (error instanceof NotServed) {
          console.log(`skip ${name}: not served`)
          continue
        }
        failed = true
        console.log(`FAIL ${name}: ${String(error.message ?? error).replace(/\s+/g, ' ').slice(0, 300)}`)
        if (process.env.VERBOSE) console.error(error)
      } finally {
        clearTimeout(timer)
      }
    }
    process.exit(failed ? 1 : 0)
  }
}
