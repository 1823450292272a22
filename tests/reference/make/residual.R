# Models with correlated or unequal residuals, by nlme: writes residual.json beside this folder.
#     Rscript tests/reference/make/residual.R
# Degrees of freedom and Kenward-Roger of three models of mmrm200 (a simulated trial with dropout) by dense algebra with
# numerical derivatives: REML by nlminb and Newton steps; W the inverse of the expected information; parameters are the
# elements of the covariance for the unstructured and Toeplitz ones, (variance, correlation) for ar1.
suppressPackageStartupMessages({library(nlme); library(jsonlite); library(numDeriv)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
tight <- lmeControl(msMaxIter = 500, maxIter = 500, niterEM = 50, tolerance = 1e-11, msTol = 1e-12, returnObject = TRUE)
gtight <- glsControl(msMaxIter = 500, maxIter = 500, tolerance = 1e-11, msTol = 1e-12, returnObject = TRUE)
out <- list()
put <- function(name, fit, data) {
  s <- summary(fit)$tTable
  out[[name]] <<- list(logLik = as.numeric(logLik(fit)), fixef = unname(s[, 1]), se = unname(s[, 2]), sigma = fit$sigma,
    cor = if (is.null(fit$modelStruct$corStruct)) NULL else unname(coef(fit$modelStruct$corStruct, unconstrained = FALSE)),
    var = if (is.null(fit$modelStruct$varStruct)) NULL else unname(coef(fit$modelStruct$varStruct, unconstrained = FALSE)),
    pearson = head(unname(as.numeric(residuals(fit, type = "pearson"))), 8),
    normalized = head(unname(as.numeric(residuals(fit, type = "normalized"))), 8))
}
f <- follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time)
put("ovary_plain", lme(f, data = Ovary, random = ~ 1 | Mare, control = tight))
put("ovary_ar1", lme(f, data = Ovary, random = ~ 1 | Mare, correlation = corAR1(), control = tight))
put("ovary_ar1_ml", lme(f, data = Ovary, random = ~ 1 | Mare, correlation = corAR1(), method = "ML", control = tight))
put("ovary_ar1_gls", gls(f, data = Ovary, correlation = corAR1(form = ~ 1 | Mare), control = gtight))
put("ortho_ident", lme(distance ~ age * Sex, data = as.data.frame(Orthodont), random = ~ 1 | Subject,
  weights = varIdent(form = ~ 1 | Sex), control = tight))
put("ortho_un", gls(distance ~ factor(age) * Sex, data = Orthodont,
  correlation = corSymm(form = ~ 1 | Subject), weights = varIdent(form = ~ 1 | age), control = gtight))
put("ortho_ident_ar1", gls(distance ~ age * Sex, data = Orthodont, correlation = corAR1(form = ~ 1 | Subject),
  weights = varIdent(form = ~ 1 | Sex), control = gtight))
put("ortho_exp_age", gls(distance ~ age * Sex, data = Orthodont, weights = varExp(form = ~ age), control = gtight))
put("ortho_comb", gls(distance ~ age * Sex, data = Orthodont, correlation = corCompSymm(form = ~ 1 | Subject),
  weights = varComb(varIdent(form = ~ 1 | Sex), varPower(form = ~ age)), control = gtight))
bw <- lme(weight ~ Time * Diet, data = BodyWeight, random = ~ Time | Rat, weights = varPower(), control = tight)
put("bw_power", bw)
put("bw_power_exp", update(bw, correlation = corExp(form = ~ Time)))
put("bw_diet", lme(weight ~ Time * Diet, data = BodyWeight, random = ~ Time | Rat, weights = varIdent(form = ~ 1 | Diet),
  control = tight))

trial <- read.csv(gzfile(file.path(here, "..", "data", "mmrm200.csv.gz")))
trial <- trial[!is.na(trial$y), ]
trial$visit <- factor(trial$visit); trial$arm <- factor(trial$arm, c("placebo", "active"))
trial$v <- as.integer(trial$visit)
g <- y ~ base * visit + arm * visit
for (m in c("REML", "ML")) put(paste0("trial_un_", tolower(m)), gls(g, data = trial, method = m,
  correlation = corSymm(form = ~ v | id), weights = varIdent(form = ~ 1 | visit), control = gtight))
put("trial_ar1", gls(g, data = trial, correlation = corAR1(form = ~ v | id), control = gtight))
put("trial_arh1", gls(g, data = trial, correlation = corAR1(form = ~ v | id), weights = varIdent(form = ~ 1 | visit),
  control = gtight))
put("trial_csh", gls(g, data = trial, correlation = corCompSymm(form = ~ v | id),
  weights = varIdent(form = ~ 1 | visit), control = gtight))
irreg <- read.csv(gzfile(file.path(here, "..", "data", "irreg.csv.gz")))
put("irreg_car1", lme(y ~ x + time, data = irreg, random = ~ 1 | id, correlation = corCAR1(form = ~ time | id),
  control = tight))
spat <- read.csv(gzfile(file.path(here, "..", "data", "spat120.csv.gz")))
put("spat_exp", gls(y ~ z + trt, data = spat, correlation = corExp(c(1, .2), form = ~ sx + sy, nugget = TRUE),
  control = gtight))
field <- read.csv(gzfile(file.path(here, "..", "data", "spatfield.csv.gz")))
put("field_gaus", gls(y ~ trt, data = field, correlation = corGaus(c(1, .2), form = ~ sx + sy | field, nugget = TRUE),
  control = gtight))
put("ovary_arma11", gls(f, data = Ovary, correlation = corARMA(form = ~ 1 | Mare, p = 1, q = 1), method = "ML",
  control = gtight))
put("ovary_car1", gls(f, data = Ovary, correlation = corCAR1(.1, form = ~ Time | Mare), control = gtight))

X <- model.matrix(g, trial); y <- trial$y; rows <- split(seq_along(y), trial$id); at <- lapply(rows, function(i) trial$v[i])
p <- ncol(X); n <- length(y)
pieces <- function(S) {
  A <- matrix(0, p + 1, p + 1); ld <- 0
  for (u in seq_along(rows)) { R <- chol(S[at[[u]], at[[u]], drop = FALSE]); ld <- ld + 2 * sum(log(diag(R)))
    Q <- backsolve(R, cbind(X[rows[[u]], , drop = FALSE], y[rows[[u]]]), transpose = TRUE); A <- A + crossprod(Q) }
  Phi <- solve(A[1:p, 1:p]); beta <- drop(Phi %*% A[1:p, p + 1])
  list(Phi = Phi, beta = beta, value = ld + A[p + 1, p + 1] - sum(A[1:p, p + 1] * beta) +
    as.numeric(determinant(A[1:p, 1:p])$modulus) + (n - p) * log(2 * pi))
}
elements <- function(S) S[lower.tri(S, TRUE)]
dense <- function(name, Sigma, start) {
  crit <- function(par) { S <- Sigma(par); if (min(eigen(S, TRUE, TRUE)$values) < 1e-6) 1e10 else pieces(S)$value }
  par <- nlminb(start, crit, control = list(rel.tol = 1e-14, iter.max = 1000, eval.max = 5000))$par
  for (i in 1:3) par <- par - solve(hessian(crit, par), grad(crit, par))
  H <- hessian(crit, par, method.args = list(d = .01)); now <- pieces(Sigma(par)); Phi <- now$Phi; m <- length(par); k <- nrow(Sigma(par))
  full <- function(e) { M <- matrix(0, k, k); M[lower.tri(M, TRUE)] <- e; M + t(M) - diag(diag(M)) }
  J <- jacobian(function(q) elements(Sigma(q)), par)
  d1 <- lapply(1:m, function(i) full(J[, i]))
  d2 <- matrix(list(), m, m)
  for (i in 1:m) { K <- jacobian(function(q) jacobian(function(r) elements(Sigma(r)), q)[, i], par)
    for (j in 1:m) d2[[i, j]] <- full(K[, j]) }
  P <- lapply(1:m, function(i) matrix(0, p, p)); Q <- matrix(list(matrix(0, p, p)), m, m); R <- Q; tr <- matrix(0, m, m)
  for (u in seq_along(rows)) { v <- at[[u]]; W <- solve(Sigma(par)[v, v, drop = FALSE]); Xu <- X[rows[[u]], , drop = FALSE]
    WX <- W %*% Xu; D <- lapply(d1, function(M) M[v, v, drop = FALSE])
    for (i in 1:m) { P[[i]] <- P[[i]] - t(WX) %*% D[[i]] %*% WX
      for (j in 1:m) { Q[[i, j]] <- Q[[i, j]] + t(WX) %*% D[[i]] %*% W %*% D[[j]] %*% WX
        R[[i, j]] <- R[[i, j]] + t(WX) %*% d2[[i, j]][v, v, drop = FALSE] %*% WX
        tr[i, j] <- tr[i, j] + sum(diag(W %*% D[[i]] %*% W %*% D[[j]])) } } }
  info <- matrix(0, m, m)
  for (i in 1:m) for (j in 1:m) info[i, j] <- .5 * (tr[i, j] - 2 * sum(diag(Phi %*% Q[[i, j]])) +
    sum(diag(Phi %*% P[[i]] %*% Phi %*% P[[j]])))
  W <- solve(info)
  adjusted <- function(curved) { S <- matrix(0, p, p)
    for (i in 1:m) for (j in 1:m) S <- S + W[i, j] * (Q[[i, j]] - P[[i]] %*% Phi %*% P[[j]] - curved * R[[i, j]] / 4)
    Phi + 2 * Phi %*% S %*% Phi }
  change <- sapply(1:m, function(i) diag(-Phi %*% P[[i]] %*% Phi))
  spread <- function(A) 2 * diag(Phi)^2 / rowSums((change %*% A) * change)
  out[[name]] <<- list(logLik = -now$value / 2, fixef = unname(now$beta), se = unname(sqrt(diag(Phi))),
    satterthwaite_df = unname(spread(2 * solve(H))), kenward_roger_df = unname(spread(W)),
    linear_se = unname(sqrt(diag(adjusted(0)))), second_order_se = unname(sqrt(diag(adjusted(1)))))
}
un <- function(e) { M <- matrix(0, 4, 4); M[lower.tri(M, TRUE)] <- e; M + t(M) - diag(diag(M)) }
dense("dense_un", un, elements(diag(30, 4) + 15))
dense("dense_homtoep", toeplitz, c(40, 28, 20, 14))
dense("dense_ar1", function(q) q[1] * toeplitz(q[2]^(0:3)), c(40, .7))
writeLines(toJSON(out, digits = 14, auto_unbox = TRUE), file.path(here, "..", "residual.json"))
