# rows.json.gz: modes, residuals and predictions of rows by lme4 at polished optima.
# Run in this directory: Rscript rows.R [names]

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

modes <- function(m) lapply(ranef(m, condVar = TRUE), function(r) {
  v <- attr(r, "postVar")
  if (!is.list(v)) v <- list(v)
  shown <- seq_len(min(6, nrow(r)))
  list(levels = vec(rownames(r)[shown]), values = unname(as.matrix(r)[shown, , drop = FALSE]),
       condVar = lapply(unname(v), function(a) list(
         first = lapply(seq_len(min(3, dim(a)[3])), function(j) matrix(a[, , j], dim(a)[1])), sum_over_levels = apply(a, 1:2, sum))))
})

residuals_of <- function(m, kind) {
  r <- if (kind == "scaled_pearson") residuals(m, "pearson", scaled = TRUE) else residuals(m, kind)
  vec(head(as.numeric(r), 10))
}

predicted <- function(m, data, model, case) {
  new <- data[unlist(model$rows), unlist(model$columns), drop = FALSE]
  for (column in names(case$changed)) new[[column]] <- factor(unlist(case$changed[[column]]))
  form <- switch(case$re_form, `NULL` = NULL, `NA` = NA, as.formula(case$re_form))
  values <- quiet(predict(m, new, re.form = form, type = case$type, allow.new.levels = case$allow_new_levels))
  list(newdata = lapply(new, function(x) vec(if (is.factor(x)) as.character(x) else x)), re_form = case$re_form,
       type = case$type, values = vec(values), allow_new_levels = case$allow_new_levels)
}

vector_of <- function(x) list(n = length(x), values = vec(x), truncated = FALSE, sum = sum(x), sumsq = sum(x^2), n_missing = 0)

describe <- function(name, model) {
  data <- read_data(model$data)
  m <- if (model$engine == "lmer") polished_lmer(linear_call(model), data) else polished_glmer(model, data)
  out <- model[c("data", "formula", "family", "link", "nAGQ", "weights", "offset", "na_action", "reml", "engine")]
  names(out) <- c("data", "formula", "family", "link", "nAGQ", "weights", "offset", "na_action", "reml", "engine")
  out$ranef <- modes(m)
  kinds <- unlist(model$residuals)
  out$residuals <- lapply(setNames(nm = kinds), function(kind) residuals_of(m, kind))
  out$predict <- lapply(model$predict, function(case) predicted(m, data, model, case))
  if (model$influence) {
    out$hatvalues <- vector_of(hatvalues(m))
    out$cooks <- vector_of(cooks.distance(m))
  }
  out
}

write_reference("rows.json.gz", list(
  about = paste("Random effects, residuals and predictions by", versions("lme4"), "(accurate optima)"),
  models = each_model("rows", describe)))
