# lmm.json.gz: every number of linear mixed models by lme4's own extractors at polished optima.
# Run in this directory: Rscript lmm.R [names]

suppressPackageStartupMessages({library(lme4); library(splines)})
source("common.R")

models <- read_json("models.json")$lmm

relative_covariances <- function(m, theta) {
  Lambda <- getME(m, "Lambdat")
  Lambda@x <- theta[getME(m, "Lind")]
  as.matrix(crossprod(Lambda[seq_len(min(nrow(Lambda), 60)), seq_len(min(nrow(Lambda), 60)), drop = FALSE]))
}

spread <- function(m) {
  tries <- attr(m, "tries")
  own <- relative_covariances(m, getME(m, "theta"))
  list(loglik = max(abs(tries$value - tries$best)) / 2,
       relcov = max(vapply(tries$par, function(p) max(abs(relative_covariances(m, p) - own)), 0)) / max(own, 1e-300),
       lowest = min(tries$value) - tries$best)
}

vector_of <- function(x) {
  x <- as.numeric(x)
  list(n = length(x), head = vec(head(x, 10)), sum = sum(x, na.rm = TRUE), sumsq = sum(x^2, na.rm = TRUE),
       n_missing = sum(is.na(x)))
}

matrices <- function(v) lapply(seq_len(dim(v)[3]), function(j) matrix(v[, , j], dim(v)[1]))

modes <- function(m, with_variance) {
  found <- ranef(m, condVar = with_variance)
  lapply(found, function(r) {
    values <- as.matrix(r)
    shown <- if (length(values) <= 200) nrow(values) else 50
    variance <- attr(r, "postVar")
    if (!is.null(variance) && !is.list(variance)) variance <- list(variance)
    list(n_levels = nrow(values), columns = vec(colnames(values)), levels = vec(rownames(values)[seq_len(shown)]),
         values = unname(values[seq_len(shown), , drop = FALSE]), col_sum = vec(colSums(values)),
         col_sumsq = vec(colSums(values^2)),
         cond_var = if (is.null(variance)) NULL else lapply(unname(variance), function(v) list(
           first = unname(matrices(v)[seq_len(min(3, dim(v)[3]))]), sum_over_levels = apply(v, 1:2, sum))))
  })
}

predictions <- function(m, data, wanted) {
  if (is.null(wanted)) return(NULL)
  new <- data[unlist(wanted$rows), unlist(wanted$columns), drop = FALSE]
  cases <- lapply(wanted$cases, function(case) {
    own <- new
    for (column in names(case$changed)) own[[column]] <- factor(unlist(case$changed[[column]]))
    form <- switch(case$re_form, `NULL` = NULL, `NA` = NA, as.formula(case$re_form))
    values <- quiet(predict(m, own, re.form = form, allow.new.levels = case$new_levels))
    list(re_form = case$re_form, new_levels = case$new_levels, changed = case$changed, values = vec(values))
  })
  list(newdata = lapply(new, function(x) vec(if (is.factor(x)) as.character(x) else x)), cases = cases)
}

describe <- function(name) {
  model <- models[[name]]
  data <- read_data(model$data)
  m <- polished_lmer(linear_call(model), data)
  V <- VarCorr(m)
  table <- as.data.frame(V)
  criterion <- if (model$reml) REMLcrit(m) else deviance(m)
  logLik <- logLik(m)
  omitted <- attr(model.frame(m), "na.action")
  dropped <- attr(getME(m, "X"), "col.dropped")
  list(
    formula = model$formula, data = model$data, reml = model$reml, weights = model$weights, offset = model$offset,
    contrasts = model$contrasts, na_action = model$na_action, tags = vec(unlist(model$tags)), criterion = criterion,
    spread = spread(m),
    fixef = list(names = vec(names(fixef(m))), estimate = vec(fixef(m)), se = vec(sqrt(diag(as.matrix(vcov(m)))))),
    vcov = unname(as.matrix(vcov(m))), sigma = sigma(m), theta = vec(getME(m, "theta")),
    varcorr = lapply(names(V), function(g) list(
      group = g, names = vec(rownames(V[[g]])), cov = unname(matrix(V[[g]], nrow(V[[g]]))))),
    varcorr_table = lapply(table, vec), aic = -2 * c(logLik) + 2 * attr(logLik, "df"), bic = BIC(logLik), df = attr(logLik, "df"),
    df_residual = df.residual(m), n_obs = nobs(m), n_groups = as.list(ngrps(m)), ranef = modes(m, model$cond_var),
    fitted = vector_of(fitted(m)),
    residuals = list(default = vector_of(residuals(m)), response = vector_of(residuals(m, "response")),
                     pearson = vector_of(residuals(m, "pearson")),
                     scaled_pearson = vector_of(residuals(m, "pearson", scaled = TRUE))),
    singular = isSingular(m, tol = 1e-4), x_sums = vec(colSums(getME(m, "X"))), dropped = vec(names(dropped)),
    na_omitted_rows = vec(as.integer(omitted)), predict = predictions(m, data, model$predict))
}

wanted <- commandArgs(TRUE)
names <- if (length(wanted)) wanted else names(models)
made <- lapply(setNames(nm = names), function(name) { message(name); describe(name) })
write_reference("lmm.json.gz", list(about = paste(
  "Linear mixed models:", versions("lme4", "numDeriv"), "- several optimisers with tight tolerances, the best of them polished",
  "by Newton steps, every number from R's own extractors at that point. spread: how far the optimisers end from each other",
  "(loglik: largest difference of the log-likelihood; relcov: largest relative difference of Lambda Lambda'; lowest: smallest",
  "deviance of any of them minus the reported one). predict: six rows of the data as new data; `changed` are columns with",
  "unseen levels in rows 1 and 4."), models = made))
