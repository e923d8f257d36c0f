/** The help text of `tulle lesson`. */

export const LESSON_HELP = `tulle lesson: learn what an overlay does, by measuring it, breaking it and mending it

usage:
  tulle lesson                 the list of lessons
  tulle lesson N               set the lab of lesson N up, and say what is to be done
  tulle lesson N --check       look at what you did, and say what is still missing

  --list             the list of lessons
                       tulle lesson --list
  --check            exit code 0 when all is done, else 1
                       tulle lesson 3 --check
  --hint             as --check, and a hint for each goal that is not reached
                       tulle lesson 3 --hint
  --answer TEXT      answer the lesson's question
                       tulle lesson 1 --answer 1
  --where            print the lab's directory: leases, logs, sockets
                       tulle lesson 4 --where
  --down             take the lab down, and forget what was reached
                       tulle lesson 3 --down
  --help             this text
                       tulle lesson --help

The lab of lesson N is called lesson-N and stands in the background until --down; "tulle lab" commands reach it with
--name lesson-N. Several may stand at a time. The texts are in docs/lessons/.
`;
