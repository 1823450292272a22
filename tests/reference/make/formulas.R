# formulas.json: what lme4::lFormula makes of each formula. Run in this directory: Rscript formulas.R

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

describe <- function(wanted) {
  data <- read_data(wanted$data)
  out <- list(id = wanted$id, data = wanted$data, formula = wanted$formula, contrasts = wanted$contrasts)
  names(out) <- c("id", "data", "formula", "contrasts")
  conditions <- character(0)
  keep <- function(c) {
    kind <- if (inherits(c, "warning")) "warning: " else "message: "
    conditions <<- c(conditions, paste0(kind, trimws(conditionMessage(c))))
    invokeRestart(if (inherits(c, "warning")) "muffleWarning" else "muffleMessage")
  }
  # One environment for the formula and its data, as at R's prompt.
  found <- try(withCallingHandlers(
    lFormula(as.formula(wanted$formula), data, contrasts = if (!is.null(wanted$contrasts)) lapply(wanted$contrasts, as_contrast)),
    warning = keep, message = keep), silent = TRUE)
  if (inherits(found, "try-error")) {
    out$error <- conditionMessage(attr(found, "condition"))
    return(out)
  }
  X <- found$X
  Zt <- found$reTrms$Zt
  frame <- found$fr
  y <- model.response(frame)
  offset <- model.offset(frame)
  numbers <- if (is.factor(y)) as.integer(y) else y
  sums <- rowSums(as.matrix(Zt))
  assign <- attr(found$reTrms$flist, "assign")
  out$response <- deparse1(found$formula[[2]])
  out$response_dim <- vec(c(NROW(y), NCOL(y)))
  out$y_sum <- sum(numbers)
  out$nobs <- nrow(frame)
  out$offset_sum <- if (is.null(offset) || !any(offset != 0)) NULL else sum(offset)
  out$X <- list(colnames = vec(colnames(X)), col_sums = vec(colSums(X)), col_sumsq = vec(colSums(X^2)),
                assign = vec(attr(X, "assign")), dropped = if (is.null(attr(X, "col.dropped"))) NULL else vec(names(attr(X, "col.dropped"))),
                row_2 = vec(X[2, ]), last_row = vec(X[nrow(X), ]))
  out$terms <- lapply(seq_along(found$reTrms$cnms), function(i) {
    group <- names(found$reTrms$cnms)[i]
    levels <- levels(found$reTrms$flist[[assign[i]]])
    list(group = group, columns = vec(found$reTrms$cnms[[i]]), nlevels = length(levels), first_levels = vec(head(levels, 4)))
  })
  out$Zt <- list(dim = vec(dim(Zt)), nnz = length(Zt@x), sum = sum(Zt@x), sumsq = sum(Zt@x^2),
                 row_sums_head = vec(head(sums, 12)), row_sums_tail = vec(tail(sums, 4)))
  out$n_theta <- length(found$reTrms$theta)
  out$theta_start <- vec(found$reTrms$theta)
  out$lower <- vec(ifelse(is.finite(found$reTrms$lower), found$reTrms$lower, NA))
  out$conditions <- vec(conditions)
  out
}

write_reference("formulas.json", list(
  note = paste("lme4::lFormula on each formula with default lmerControl; `error` where R stops, `conditions` for R",
               "warnings/messages. Terms are in lme4's internal order (decreasing number of levels)."),
  versions = list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4"))),
  formulas = lapply(all_models()$formulas, describe)))
