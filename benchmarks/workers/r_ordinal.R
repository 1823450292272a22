# Worker that fits ordinal models with R's ordinal.

suppressPackageStartupMessages(library(ordinal))

here <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
source(file.path(here, "protocol.R"))

fit <- function(task) clmm(as.formula(task$formula), data = task$data, link = task$link, nAGQ = task$nagq)

describe <- function(model, task) {
  list(
    criterion = -2 * as.numeric(logLik(model)),
    evaluations = as.integer(model$optRes$evaluations[["function"]]),
    converged = model$optRes$convergence == 0,
    singular = NA
  )
}

serve("ordinal", fit, describe)
